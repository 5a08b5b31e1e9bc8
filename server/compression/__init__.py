"""Text becomes gists: a bounded queue in front of pulling workers; the store, not the queue, remembers what is to do.

submit ──► JobQueue (interactive | bulk) ──lease──► run_worker: compress ──gists──► store, then ──next lease──► no lease
               ▲                                        │ too late, lost, failed: back to the front, three attempts
               └──── sweep of pending edits in the store ┘
"""
