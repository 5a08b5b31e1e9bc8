"""Edit adapters on a frozen base: `checkpoint.py` (the copy) -> `losses.py` (what is trained) -> `run.py`."""
