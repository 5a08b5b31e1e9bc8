"""A frozen base and what makes it take edits.

name ──────► resolve.py   which base and adapter folders are served ─► base.py  fetches the default base
base ──────► decoder.py   its layers, one by one, in plain PyTorch
             template.py  how its chat template frames edits and questions
adapter ───► adapter.py   the two files beside the base; eight_bits.py packs their matrices
both ──────► hf.py        the reference: captures, routes, reads
"""
