"""One process from start to end: ports bound, Ray and store, engine, canary, replica, ready; then all of it back.

app.py        `serve`: the order of things; stages.py prints it, startup.py has its small steps
listen.py     sockets and HTTP servers            engine_args.py  what vLLM is told
logs.py       lines of text or of JSON            observed.py     what the engine does, timed and traced
ray_local.py  Ray: one's own, or a cluster's      actors.py       the two named actors in it
compress.py   an engine that only compresses          endpoint.py     one address for several engines, by Ray Serve
retokenize.py waiting edits in the words of this model
watch.py      a part that dies ends the process; one that hangs closes /readyz
"""
