"""Where items are kept: the interface (base.py) and its two homes (memory.py, lmdb.py)."""
