"""What runs around the engine: an edit's way from an HTTP request to the engine's pool, and the commands of `incomes`.

cli/ ─► boot/ starts, watches and ends the process
api/ ──► store/ (truth) ──► compression/ (gists, made by the engine) ──► replicas/ (deltas) ──► the engine's pool
auth/ says whose request it is and what a project may have; edits/ are the nouns and rules, pure; settings.py, all flags
"""
