"""What other people would do: retrieval into the prompt, all edits in the prompt, fine-tuning. Made by `methods.py`."""
