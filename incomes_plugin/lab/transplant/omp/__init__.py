"""Orthogonal Matching Pursuit of many targets over one dictionary.

    atoms [A, E], targets [M, E], k  ->  solve  ->  SparseCodes: at most k atoms and their coefficients for each target

gram.py is the path for a CPU, residual.py the one for a GPU, reference.py what both must agree with; search.py solves
once for several k.
"""

from incomes_plugin.lab.transplant.omp.codes import SparseCodes
from incomes_plugin.lab.transplant.omp.search import Search
from incomes_plugin.lab.transplant.omp.solve import Path, solve

__all__ = ["Path", "Search", "SparseCodes", "solve"]
