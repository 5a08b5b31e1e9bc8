"""facts, published edits, text -> `data/` -> Batch -> `losses.py` -> `loop.py` -> checkpoint + edit adapter."""
