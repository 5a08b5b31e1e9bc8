"""Where a question is answered: each backend takes messages and a set of edits and gives an answer.

methods and rivals ─► vllm.py   the engine with the plugin, as it is served
                      hf.py     the reference in plain PyTorch
                      plain.py  a model without an adapter (the rival `lora`)
start.py makes one of them; chat.py turns messages into token ids, the same for all.
"""
