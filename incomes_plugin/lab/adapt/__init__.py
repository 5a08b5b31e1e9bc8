"""A frozen base gets its edit adapter: `incomes adapt MODEL --out DIR`.

data ─► plan.py       which edits, questions and prompts are looked at
        features.py   everything the frozen base says of them, computed once and kept on disk
        routing.py    A, B, w: the right edit among many        ┐
        verifying.py  does a candidate apply?                   ├─► calibrating.py   thresholds at several N ─► adapter
        reading.py    head maps and zero-gist: the right answer ┘
"""
