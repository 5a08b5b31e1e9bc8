"""The paper's experiments: how many facts a memory or a one-layer transformer holds, beside the published constants.

search.py       the largest N that holds
linear.py       N99 of linear memories against their width
shared.py       N99 of an MLP against its size, 32 answers for all facts
updates.py      thousands of inserts and deletes against a batch solve
task.py         subjects, relations, answers in noise; transformer.py learns them; recall.py measures it
parts.py        one registry of all of these; run.py runs cells and goes on where it was stopped, report.py writes
"""
