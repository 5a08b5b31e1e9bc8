"""The admin port: one file of routes per resource.

request ─► edits │ imports │ edit_sets │ replicas (timed, strict) ─► schemas: the JSON in and out
   add:    tokens ─► writes: admit (pool_room, queue) ─► store ─► queue ─► wait until ready or active
"""
