"""The chat port: vLLM's own OpenAI routes behind a gate that gives every generation a pinned snapshot.

request -> `gate` (ASGI) -> `fields` parse and strip our body fields -> `resolve` edit set to snapshot, once
        -> vLLM's handler inside the edit scope -> `respond` adds headers and attribution
`routes` says which of vLLM's routes exist at all: what is not listed is refused, never answered without edits.
"""
