"""The mechanism, in plain tensors: which edits a request reads, and how much of them. No engine, no file.

question's features ─► routing.py    late interaction with every edit's features
                       candidates.py the best few edits by it, among all or among those that an index names
                       token_index.py  which edits have tokens like a question's: FAISS, for many edits on a CPU
                       verifier.py   a small transformer over question and candidate: does the edit apply?
                       picks.py      both together: the picks of a request, or none
hidden states ───────► reading.py    each head of a reading layer softly chooses among [zero-gist, tokens of the picks]
                       copying.py  the next token is the base's own, or a token of the picks
                       attribution.py  how much each edit weighed in an answer

Used by the reference model (`model/hf.py`), by the engine's layers (`vllm/`) and by what trains them (`lab/adapt`).
"""
