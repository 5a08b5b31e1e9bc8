"""The durable edit store: an append-only log in SQL is the truth, all else is derived from it or forgotten.

StoreClient ──Command──► EditStoreActor ──group──► EditStore.commit ──one synced transaction──► database
    (client)             (actor, signals)          (core)                revisions + log  = what replicas follow
                               │                                         edits, versions  = the present, gists inline
                               ◄── poll / ack / nack of the replicas     requests         = retries change nothing

`core` and everything below it know no Ray; `check` rebuilds the present from the log and compares.
"""
