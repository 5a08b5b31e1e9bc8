"""Memories of facts: a key that stands for a question goes in with a value, and the value comes out for the key.

codes.py      values: a unit code of every id, so that no two facts share one
whitening.py  keys: without the mean and the preferred directions that a model's hidden states have
linear.py     one matrix, written by rules.py in one go or by recursive.py fact by fact, with exact deletes
readout.py    which value was meant, and when to say none
reference.py  the same by definition, in float64: what all of it is tested against
"""

from incomes_plugin.lab.facts.memories.attention import AttentionMemory
from incomes_plugin.lab.facts.memories.codes import unit_codes
from incomes_plugin.lab.facts.memories.linear import LinearMemory
from incomes_plugin.lab.facts.memories.mlp import MLPMemory
from incomes_plugin.lab.facts.memories.readout import Readout, decide, score, threshold_at
from incomes_plugin.lab.facts.memories.recursive import RecursiveMemory
from incomes_plugin.lab.facts.memories.whitening import Whitening

__all__ = [
    "AttentionMemory",
    "LinearMemory",
    "MLPMemory",
    "Readout",
    "RecursiveMemory",
    "Whitening",
    "decide",
    "score",
    "threshold_at",
    "unit_codes",
]
