"""`incomes replicas`: which engines follow the store, how far behind each is, and who compresses edits."""

from __future__ import annotations

from incomes_server.cli.client import DEFAULT_URL, KeyOption, UrlOption, connect
from incomes_server.cli.output import JsonFlag, print_json, print_table


def replicas(url: UrlOption = DEFAULT_URL, api_key: KeyOption = None, as_json: JsonFlag = False) -> None:
    """List the engines: whether each serves, how many versions of edit sets it is behind, what it refuses; and those
    that compress edits."""
    client = connect(url, api_key)
    found, workers = client.replicas.list().data, client.replicas.workers().data
    if as_json:
        return print_json([*found, *workers])
    rows = ((r.id, "serving" if r.serving else "catching up", r.lag, "; ".join(r.nacks.values())) for r in found)
    print_table(("name", "state", "versions behind", "refuses"), rows)
    made = ((w.id, w.leased, w.made, f"{w.idle_s:.0f} s") for w in workers)
    print_table(("compresses", "edits now", "made", "silent for"), made)
