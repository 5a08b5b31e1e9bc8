"""Everything around the engine (import name `incomes_server`): an edit from its HTTP request to the engine's pool.

POST /v1/edits ─► api/admin/ ─► store/ ─► compression/ ─► store/ ─► replicas/ ─► the engine's pool
                  checks        durable   the engine      with its  what an engine
                                          makes the gist  gist      lacks is sent to it
chat request   ─► api/chat/ ─► vLLM, with a snapshot pinned
cli/ serve     ─► boot/ starts, watches and ends the process

auth/ says whose request it is, and what a project may have. edits/ has the nouns and rules, without SQL, Ray or HTTP.
api/http/ is what both APIs share. cli/ is the command `incomes`. settings.py has all flags.
"""
