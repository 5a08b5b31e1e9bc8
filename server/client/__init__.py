"""The typed Python client of the admin API: `Client` and `AsyncClient`, the same methods on both.

calls.py    a request as a value: path, body, what its answer becomes
   └► methods.py, resources.py   `client.edits.add(…)` ─► client.py, sending.py  retries, errors ─► EditObject

It imports neither torch nor vLLM nor Ray; answers are the models of `api/admin/schemas.py`, errors those of
`incomes_plugin/errors.py`.
"""

from incomes_server.client.client import AsyncClient, Client

__all__ = ["AsyncClient", "Client"]
