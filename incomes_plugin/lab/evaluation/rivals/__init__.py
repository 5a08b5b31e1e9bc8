"""What one would do without this product, measured on the same questions. `methods.py` makes them by name.

edits ─► retrieval.py, with bm25.py or minilm.py   the edits that a search finds, in the prompt
         all_in_prompt.py                          every edit in the prompt, until the context is full
         lora.py                                   a copy of the base, fine-tuned on the edits
room.py says how many tokens of edits a prompt has room for; optional.py imports packages of the extra `eval`.
"""
