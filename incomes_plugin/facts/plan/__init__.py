"""Will N edits work with this model, and what do they cost? `incomes plan`.

measured.py  the model's own keys: how alike they are, how far the right edit leads
memory.py    what a linear memory recalls of such keys
gate.py      what the edits take of the fact gate, and whether it would refuse them
planner.py   those and the theory -> bytes, load, expected recall, logit scale; refuses beyond the safe load
cli.py       the command
"""

from incomes_plugin.facts.plan.planner import Plan, plan

__all__ = ["Plan", "plan"]
