"""Tokenizer transplant without training: an edit-capable checkpoint goes on with another model's tokenizer.

    tokenizers -> tokens.py      what bytes every token stands for
               -> alignment.py   which tokens both have; special.py: which special tokens play the same part
               -> tokenizer.py   the donor's tokenizer with the base's habits; numbers.py: and its cutting of numbers
               -> prepare.py     all of this, decided
    matrices   -> methods.py     rows for the tokens the base lacks; omp/ solves the paper's; estimate.py: one matrix
    both       -> assess.py      will it work? digits.py: how numbers are cut
               -> trial.py       bits per byte of methods and k (bits.py), before anything is written
               -> checkpoint.py  the new folder; manifest.py: its record, and the way back
               -> inspection.py  new rows that stand out; report.py and picture.py say all of it; run.py: the whole way

One legend: V rows of a matrix, A anchors (tokens both have), M new tokens, E and E' widths of base and donor.
"""
