"""The backends: one file each, and `table.py`, which names them all."""
