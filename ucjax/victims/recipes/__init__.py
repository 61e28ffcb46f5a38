"""What victims do in each training step; `victims/table.py` names them."""
