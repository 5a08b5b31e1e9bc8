"""Fact memory: associative memories of constant size, and what they say about how many edits fit (arXiv 2412.06538).

    memories/  keys and values in, a memory out; a query gets a value back

One legend: N facts, E width of a key, U width of a value, M values to choose among, F hidden units, B queries.
"""
