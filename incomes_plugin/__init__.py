"""InComeS: a served model reads edits. The runtime works inside or for the model, the lab makes and measures adapters.

text of an edit ─► vllm/ captures it on the engine ─► gist/ ─► bytes, stored by the server ─► pool/ in the engine
a request       ─► vllm/ pins a snapshot of the pool ─► selection/ routes it to edits and reads them ─► answer, weights

model/      a base and its edit adapter, and the whole mechanism once more in plain PyTorch, as the reference
errors.py   every error that is raised on purpose
orphans.py  ends the children of a process that was killed
lab/        makes adapters, measures quality, studies memories; the packages above do not import it

Nothing here imports the server (`incomes_server`).
"""
