"""The lab: what makes, measures and studies edit-capable models. Imports the runtime, never the server.

data/    facts, published edits, and prompts that no edit answers ─► adapt/   a frozen base gets its edit adapter
"""
