"""The revisions, oldest first, one file each. None is changed once it has been released.

a database's revision ─► each later file's `upgrade`, in order ─► the tables of `schema.py`
"""
