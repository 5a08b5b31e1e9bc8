"""Verbatim texts: a text becomes K vectors after which the frozen model says exactly that text, then its end token.

    text ─► targets.py ─► planner.py   how many vectors, where a long text is cut
                           │           (capacity.py measures what vectors of a model hold: `incomes capacity`)
                           ▼
            start.py ─► row.py ─► optimise.py ◄─ frozen.py    many texts at once against the frozen weights
                                   │   checkpoint.py          a stopped run goes on
                                   ▼
            decode.py   greedy decoding by the model itself, and by vLLM with prompt embeddings
                                   ▼
            record.py ─► recall.py     stored with hashes of everything; released block by block, each block checked

    frame.py ─► serving.py     what the server says: from vectors, or what is stored; no weights here

precision.py says how numbers are stored; run.py goes the whole way; worth.py counts what it is worth for a user's texts
(`incomes verbatim report`); clauses.py has texts to measure with. One legend: K vectors, N tokens of a text.
"""
