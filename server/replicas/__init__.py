"""Engines follow the store: one long poll is heartbeat, acknowledgement and the next deltas in one.

run_replica ──poll(positions)──► store, waits for news ──Delta──► apply on the engine ──poll(new positions)──► ack
     └ refusal: nack(reason), again after a pause

`ReplicaTable` keeps leases and positions: an edit is active when every replica that serves has acknowledged it.
"""
