"""Fact memory: associative memories of constant size, and what they say about how many edits fit (arXiv 2412.06538).

    memories/  keys and values in, a memory out; a query gets a value back
    theory.py  how many facts fit, by width and rule
    capacity/  the paper's experiments, which measure that
    check.py   a user's own facts in every memory, beside the edits themselves
    plan.py    N edits with an adapter: bytes on the host and on the device, milliseconds of routing, what fits
    cli.py     `incomes facts`, `incomes plan`

One legend: N facts, E width of a key, U width of a value, M values to choose among, F hidden units, B queries.
"""
