"""Who is asking?

Authorization: Bearer KEY ─► middleware.py ─► keys.py: the key's project, or 401 ─► `request.state.project`

Both ports use it. Everything behind it sees the project and never the key.
"""
