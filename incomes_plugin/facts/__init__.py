"""Fact memory: associative memories of constant size, and what they say about how many edits fit (arXiv 2412.06538).

    memories/  keys and values in, a memory out; a query gets a value back
    theory.py  how many facts fit, by width and rule
    capacity/  the paper's experiments, which measure that
    check/     a user's own facts in every memory and in the gist pool
    plan/      N edits with a model: bytes, load, recall, scale; the refusal beyond the safe load
    gate/      in serving: does any edit apply to a token, and which few?
    cli.py     `incomes facts`

One legend: N facts, E width of a key, U width of a value, M values to choose among, F hidden units, B queries.
"""
