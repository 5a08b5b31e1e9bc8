"""What others do with edits, on the same model: everything in the prompt, retrieval into the prompt, fine-tuning.

`methods.METHODS` names each; a module here has one factory per name.
"""
