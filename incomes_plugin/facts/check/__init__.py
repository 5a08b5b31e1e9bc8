"""A user's dictionary of facts in every kind of memory and in the gist pool, side by side.

dictionary.py  the file: subject, relation, answer; wording.py: how they are asked
keys.py        questions -> keys, by the model; whitened with its own covariance
memories.py    every kind of memory: recall, wrong answers, abstentions, retention
pool.py        the same of the gist pool, by generated answers
advice.py      where parameters should go for a dictionary of this size
questions.py   what is asked; run.py: all of it as a table
"""
