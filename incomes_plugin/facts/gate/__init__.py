"""The fact gate: does any edit apply to a token, and which few? Constant time and size, in front of soft selection.

hidden.py       a fixed hidden layer, fitted to the model's own keys: which units a key or a question excites
memory.py       what is written for each unit, edit by edit; candidates of a token, or none
load.py         how many entries it holds safely, and the refusal beyond
tally.py        how often it answered, and how often the exact index did instead
file.py         the fitted gate as a file beside the model
fit.py          fit and calibrate it: `python -m incomes_plugin.facts.gate.fit MODEL`
reference.py    the same by definition, with sets: what all of it is tested against
"""

from incomes_plugin.facts.gate.file import FactGate
from incomes_plugin.facts.gate.hidden import HiddenLayer
from incomes_plugin.facts.gate.memory import FactMemory
from incomes_plugin.facts.gate.tally import Tally

__all__ = ["FactGate", "FactMemory", "HiddenLayer", "Tally"]
