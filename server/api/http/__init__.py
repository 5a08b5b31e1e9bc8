"""What both ports have around their routes, the outermost first:

request_id ─► cors ─► health (readiness) ─► auth ─► body (json_body) ─► routes; errors: the one map to HTTP; metrics
"""
