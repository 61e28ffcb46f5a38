"""What every room stands on: devices and processes, atomic files, progress, platforms."""
