"""Tokenizer transplant without training: an edit-capable checkpoint goes on with another model's tokenizer.

tokenizers -> tokens.py      what bytes every token stands for
           -> alignment.py   which tokens both have; special.py: which special tokens play the same part
matrices   -> methods.py     rows for the tokens the base lacks; omp/ solves the one the package is named for
"""
