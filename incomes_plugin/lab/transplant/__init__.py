"""Tokenizer transplant: a base, with its edit adapter, gets another model's tokenizer without training.

tokenizers ─► tokens.py       which bytes each token stands for
              alignment.py    which tokens both tokenizers have; special.py: which special tokens play the same part
              cutting.py      who cuts a text into tokens; numbers.py, words.py, word_start.py, digits.py: the cases
              tokenizer.py    the new tokenizer's files
              prepare.py      all of these decisions together
matrices   ─► methods.py      rows for the tokens that the base lacks; matrices.py finds them, rows.py plans each row
              estimate.py     one matrix by one method; omp/ is the method of the paper
both       ─► assess.py       will it work? Measured before anything is written
              trial.py        bits per byte of methods and k on a text, before anything is written
              checkpoint.py   the new folder; stream.py: a weights file copied with some of its tensors replaced
              inspection.py   new rows that stand out; edits.py: your edits asked before and after
              run.py          the whole way; report.py: what was done and found; cli.py: `incomes transplant`

Letters: V rows of a matrix, A anchors (tokens both have), M new tokens, E and E' widths of base and donor.
"""
