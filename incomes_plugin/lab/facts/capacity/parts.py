"""Every experiment by name: the command and the tests go through this one list."""

from __future__ import annotations

from incomes_plugin.lab.facts.capacity.dynamics import Dynamics
from incomes_plugin.lab.facts.capacity.experiment import Experiment
from incomes_plugin.lab.facts.capacity.linear import Linear
from incomes_plugin.lab.facts.capacity.parameters import Parameters
from incomes_plugin.lab.facts.capacity.shared import Shared
from incomes_plugin.lab.facts.capacity.single import Single
from incomes_plugin.lab.facts.capacity.tradeoff import Tradeoff
from incomes_plugin.lab.facts.capacity.updates import Updates

EXPERIMENTS = (Linear(), Single(), Shared(), Updates(), Parameters(), Tradeoff(), Dynamics())
PARTS: dict[str, Experiment] = {part.name: part for part in EXPERIMENTS}
