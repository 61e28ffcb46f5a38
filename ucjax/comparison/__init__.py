"""The table of protections × victims: its rows and columns, its cells, and how they are filled."""
