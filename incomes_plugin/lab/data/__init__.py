"""Edits with their questions, and prompts that no edit answers: what adapters are trained and measured with.

names.py, relations.py ─► facts.py      invented facts, endless          ┐
                          examples.py   invented, published, a user's    ┴─► edits with their questions
records.py                lines of published sets, checked         ──► evaluation, and edits that are in conflict
archives.py               published questions with answers               ┐
unrelated.py              a fixed list of many kinds, for evaluation     ├─► prompts that no edit answers
prompts.py                chat, code, tasks, passages; all by kind       ┘
"""
