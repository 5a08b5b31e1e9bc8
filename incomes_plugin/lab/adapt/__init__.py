"""A frozen base gets its edit adapter: `incomes adapt MODEL --out DIR`.

data ─► plan.py       which edits, questions and prompts are looked at
        tokens.py     their token ids
        features.py   everything the frozen base says of them, computed once and kept on disk
        routing.py    A, B, w: the right edit among many        ┐
        verifying.py  does a candidate apply?                   ├─► rules.py   thresholds, rivalry, asking on ─► adapter
        judging.py    do two edits contradict each other?       │   (pairs of them: conflict_groups.py)
        reading.py    head maps and zero-gist: the right answer ┘

`run.py` calls them in this order.
"""
