"""Serving benchmark: `make bench` -> `python -m benchmarks` -> results/serving.json and serving.md.

model.py       a 0.3 B random-weight checkpoint with an edit adapter, written to a temporary folder
engines.py     stock vLLM and the edit engine, each in a process of its own, driven over a pipe
throughput.py  tokens/s and time to first token, variants interleaved, ratios to stock
bulk.py        capture of many edits against plain prefill of the same tokens
server.py      a real `incomes serve`: start time, add-to-active latency, bulk import over HTTP
stats.py       medians;  report.py  the Markdown table

quality.py     `python -m benchmarks.quality`: how well edits hold, by data set, method and number of edits
gists.py       `python -m benchmarks.gists`: success against bytes per edit, by rules (gist_rules.py) that keep some;
               gists_report.py  its table and picture
omp.py         `python -m benchmarks.omp`: what a row of a tokenizer transplant costs, against scikit-learn and, as an
               external program (omp_external.py), the published tool
transplant.py  `python -m benchmarks.transplant`: bits per byte and edits answered of transplants of the default base;
               donors.py trains donors; transplant_memory.py  what the command holds in memory
"""
