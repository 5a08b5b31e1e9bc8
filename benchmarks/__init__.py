"""Serving benchmark: `make bench` -> `python -m benchmarks` -> results/serving.json and .md, on the default base.

adapters.py    its adapter with a threshold that every edit passes or none, random gists and prompts
engines.py     stock vLLM and edit engines, each in a process of its own (engine_child.py), driven over a pipe
throughput.py  tokens/s and time to first token, variants interleaved, ratios to stock
bulk.py        capture of many edits against plain prefill of the same tokens
server.py      a real `incomes serve`: start time, add-to-active latency, bulk import over HTTP
stats.py       medians;  report.py  the Markdown table

omp.py         `python -m benchmarks.omp`: what a row of a tokenizer transplant costs, against scikit-learn and, as an
               external program (omp_external.py), the published tool
transplant.py  `python -m benchmarks.transplant`: bits per byte of transplants; donors.py (schedule.py) trains donors

How well edits hold is measured by `incomes eval`.
"""
