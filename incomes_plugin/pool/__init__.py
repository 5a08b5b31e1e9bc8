"""The gists of every edit set that an engine can read.

deltas ──► snapshot.py  identity of a snapshot and what takes one to the next, shared with the server
           gists.py     `GistPool`: commits, holders, room
           table.py     `RouteTable`: what routing sees of one snapshot
           indexing.py  `Indexer`: an index of a big table's route keys, grown in a thread
           lineage.py   which gists no snapshot reaches any more
picks ───► picked.py    `PickedEdit`s on the device, the latest used ones kept
engine ──► layout.py    where a key lies in a page of the engine's own KV cache

No names are exported here: the server imports `snapshot.py` and must not pay for torch.
"""
