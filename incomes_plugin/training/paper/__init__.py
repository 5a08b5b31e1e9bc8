"""The paper's recipe: `batches.py` (pools and questions) -> `losses.py` (teacher and student) -> `run.py`."""
