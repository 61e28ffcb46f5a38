"""What a run costs: its real steps, counted by the compiler and timed, before it starts."""
