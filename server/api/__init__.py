"""HTTP: `admin/` is the admin port, `chat/` stands in front of vLLM's app on the chat port, `http/` is around both.

request ─► http/: id, probes, key, body ─► admin/: edits and edit sets │ chat/: generations with edits
"""
