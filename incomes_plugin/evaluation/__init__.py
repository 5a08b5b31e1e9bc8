"""Do edits hold when the answer is generated? One harness for ours and its rivals, on vLLM and on the reference.

records.py, invented.py   what a data set is: files, and facts no training saw     datasets.py  find one by name
selection.py              the N active edits and the questions about them
interface.py              the contract: methods.py and rivals/ know edits, backends/ run the model
harness.py                one evaluation           metrics.py  answers -> shares with intervals
run.py                    options -> figures       report.py, plot.py  JSON, Markdown, table, picture       cli.py
held_out.py               the small check that training makes between steps
"""
