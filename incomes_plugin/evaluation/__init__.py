"""Does an edit hold when the answer is generated? `held_out.py` asks about invented words training never saw."""
