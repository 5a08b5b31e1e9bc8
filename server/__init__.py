"""What runs around the engine: an edit's way from an HTTP request to the engine's pool, and the commands of `incomes`.

api/ ──► store/ (truth) ──► compression/ (gists, made by the engine) ──► replicas/ (deltas) ──► the engine's pool
cli/ and app.py start and stop all of it; auth/ says whose request it is; edits/ are the nouns and rules, pure.
"""
