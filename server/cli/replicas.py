"""`incomes replicas`: which engines follow the store, and how far behind each is."""

from __future__ import annotations

from incomes_server.cli.client import DEFAULT_URL, KeyOption, UrlOption, connect
from incomes_server.cli.output import JsonFlag, print_json, print_table


def replicas(url: UrlOption = DEFAULT_URL, api_key: KeyOption = None, as_json: JsonFlag = False) -> None:
    """List the engines: whether each serves, how many versions of edit sets it is behind, what it refuses."""
    found = connect(url, api_key).replicas.list().data
    if as_json:
        return print_json(found)
    rows = ((r.id, "serving" if r.serving else "catching up", r.lag, "; ".join(r.nacks.values())) for r in found)
    print_table(("name", "state", "versions behind", "refuses"), rows)
