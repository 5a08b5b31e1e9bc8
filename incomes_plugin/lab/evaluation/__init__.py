"""Do edits hold when the answer is generated? One harness for ours and its rivals, on vLLM and on the reference.

invented.py               facts no training saw, as records       datasets.py  a file of records found by its name
selection.py              the N active edits and the questions about them, and about edits that are left out
derived.py                the same questions after other turns, after long texts, two at once
unrelated.py, known.py    prompts that no edit answers; what the base knows by itself
interface.py              the contract: methods.py and rivals/ know edits, backends/ run the model
harness.py                one method asked           metrics.py  answers -> shares with intervals
run.py                    options -> cells           report.py, plot.py  JSON, Markdown, picture         cli.py
"""
