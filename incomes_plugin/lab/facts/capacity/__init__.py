"""The paper's experiments: how many facts a memory or a one-layer transformer holds, beside the published constants.

search.py       the largest N that holds
linear.py       N99 of linear memories against their width
single.py       the same of a Hebbian memory if one memory of each size is looked at
shared.py       N99 of an MLP against its size, 32 answers for all facts
updates.py      thousands of inserts and deletes against a batch solve
task.py         subjects, relations, answers in noise; transformer.py learns them
parameters.py   the smallest transformer for so many facts
tradeoff.py     value parameters against MLP parameters
dynamics.py     the relation is learned first
parts.py        one registry of these experiments; run.py measures what is missing, report.py writes it down
"""
