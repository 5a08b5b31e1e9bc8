"""The typed Python client of the admin API: `Client` and `AsyncClient`, the same methods on both.

calls.py   a request as a value: path, body, what its answer is ─► sending.py  retries under one Idempotency-Key, errors
                                                                       └► client.py  `client.edits.add(…)` ─► EditObject

It imports neither torch nor vLLM nor Ray; answers are the models of `api/admin/schemas.py`, errors those of
`incomes_plugin/errors.py`.
"""

from incomes_server.client.client import AsyncClient, Client

__all__ = ["AsyncClient", "Client"]
