"""HTTP: the admin port's routes are one file per resource, `chat/` stands in front of vLLM's app on the chat port.

request ─► request_id ─► health ─► auth ─► route (strict) ─► writes: admit, store, queue, wait ─► schemas, or errors
"""
