"""50 tenants with 1,000 edits each: no id, text, count, event or pick of one reaches another.

Store, API, keys and encryption are real, and so are the pool and routing; gists are random. What an engine adds
(answers, attribution, prefix cache) is in `tests/attack/test_tenants.py`. Short by default, at length with ATTACK=long.
"""

from __future__ import annotations

import json
import os
import random
import time
from base64 import b64encode
from dataclasses import replace

import pytest
import torch
from incomes_server.api.chat.fields import parse_body
from incomes_server.settings import Settings

from incomes_plugin.gist import dump_gists
from incomes_plugin.gist.edit import Captured
from incomes_plugin.gist.format import load_gists
from incomes_plugin.pool.gists import GistPool
from incomes_plugin.pool.snapshot import SnapshotDelta
from incomes_plugin.selection.picks import choose
from incomes_plugin.selection.rules import RoutingRules
from tests.incomes_plugin.pool.small import CPU, adapter, gist
from tests.server.local import local_server
from tests.tiny_model import write_tiny_model

IS_LONG = os.environ.get("ATTACK") == "long"
TENANTS, EDITS = (50, 1000) if IS_LONG else (5, 40)
NAMES = [f"tenant-{number}" for number in range(TENANTS)]
MODEL = "mf_a"
ANYTHING = RoutingRules(candidates=2 * EDITS, most_picks=2 * EDITS, threshold=-1e9)
"""Picks whatever routing sees."""

pytestmark = [pytest.mark.attack] if IS_LONG else []


async def make(jobs):
    return [Captured(*job.edit, dump_gists([gist(job.edit_id, 2, job.version)], MODEL)) for job in jobs]


class Replica:
    """The real pool, fed by the real replica loop."""

    def __init__(self):
        room = {"capacity_bytes": 1 << 31, "device_bytes": 1 << 28}
        self.pool = GistPool(adapter(), device=CPU, dtype=torch.float32, **room)
        self.newest = {}

    def commit(self, delta):
        gists = tuple(one for blob in delta.added for one in load_gists(blob, MODEL))
        assert not delta.deleted
        whole = SnapshotDelta(delta.base, delta.snapshot, gists, delta.removed, delta.ages)
        self.newest[delta.snapshot.edit_set] = self.pool.commit(whole)

    def edits_of(self, edit_set):
        return {edit_id for edit_id, _ in self.newest[edit_set].table.edits}

    def picks_of(self, edit_set, asked):
        """Ids that a question spelled like the edit `asked` picks in a set."""
        table, small = self.newest[edit_set].table, adapter()
        question = gist(asked, 2).features.unpack()
        with torch.inference_mode():
            picking = replace(small.picking, rules=ANYTHING)
            picks = choose(picking, question, table.keys, table.features_of, table.age_of)
        return {table.edits[row][0] for row in (*picks.edits, *picks.candidates)}


async def pages(client, path):
    found, after = [], None
    while True:
        page = (await client.get(path, params={"limit": 100} | ({"after": after} if after else {}))).json()
        found += page["data"]
        if not page["has_more"]:
            return found
        after = page["last_id"]


def lines_of(tenant):
    rng = random.Random(tenant)
    for number in range(EDITS):
        text = f"The code of {tenant} number {number} is {rng.random()}."
        yield json.dumps({"custom_id": f"doc-{number}", "external_id": f"doc-{number}", "text": text})


async def live_as(client):
    """Import the tenant's edits under names, keys and external ids that all tenants use; returns ids and set."""
    tenant = (await client.get("/v1/api_keys")).json()["data"][0]["project"]
    params = {"wait": "active", "timeout_s": 600}
    body = "\n".join(lines_of(tenant)).encode()
    headers = {"idempotency-key": "the same for all"}
    for _ in range(2):  # sent again it is the same import
        answer = await client.post("/v1/edits/import", content=body, params=params, headers=headers, timeout=600)
        assert (answer.status_code, answer.json()["reached"]) == (200, "active"), answer.text[:500]
    ids = [line["edit"] for line in answer.json()["data"]]
    assert len(set(ids)) == EDITS
    (edit_set,) = (await client.get("/v1/edit_sets")).json()["data"]
    assert (edit_set["name"], edit_set["num_edits"]) == ("default", EDITS)
    return set(ids), edit_set["id"]


async def look_as(client, tenant, own, edit_set):
    """Whatever the tenant sees that is not its own."""
    edits = await pages(client, "/v1/edits")
    leaks = [edit["text"] for edit in edits if f" {tenant} " not in edit["text"] or edit["edit_set"] != edit_set]
    leaks += sorted({edit["id"] for edit in edits} ^ own)
    events = [json.loads(line) for line in (await client.get("/v1/audit_events/export")).text.splitlines()]
    mine = own | {edit_set}
    targets = {change["target"] for event in events for change in event["changes"]}
    leaks += [target for target in targets if target not in mine and not target.startswith("key_")]
    assert {event["project"] for event in events} == {tenant}
    (replica,) = (await client.get("/v1/replicas")).json()["data"]
    leaks += [name for name in replica["positions"] if name != edit_set]
    return leaks


async def reach(client, foreign, edit_set):
    """Every route that names an object, with another tenant's: it answers as for what never existed."""
    leaks = []
    for method, path, kind, body in (
        ("GET", "/v1/edits/{}", "edit_", None),
        ("POST", "/v1/edits/{}", "edit_", {"text": "mine now"}),
        ("POST", "/v1/edits/{}/retire", "edit_", None),
        ("GET", "/v1/edit_sets/{}", "eset_", None),
        ("DELETE", "/v1/edit_sets/{}", "eset_", None),
        ("GET", "/v1/edits?edit_set={}", "eset_", None),
        ("GET", "/v1/edits?after={}", "edit_", None),
        ("POST", "/v1/edits", "eset_", {"text": "mine now"}),
    ):
        seen = []
        for name in (foreign if kind == "edit_" else edit_set, kind + "0" * 24):
            sent = body if path != "/v1/edits" else {**body, "edit_set": name}
            answer = await client.request(method, path.format(name), json=sent)
            assert answer.status_code in {400, 404}, (method, path, answer.text)
            seen.append((answer.status_code, answer.text.replace(name, "NAME")))
        leaks += [(method, path)] if seen[0] != seen[1] else []
    return leaks


@pytest.mark.timeout(3600)
async def test_nothing_crosses(database_url, tmp_path_factory, figure):
    started = time.monotonic()
    model = write_tiny_model(tmp_path_factory.mktemp("model"))
    master = b64encode(bytes(32)).decode()
    settings = Settings(api_keys=("ops:k-ops",), encryption_key=master)
    replica, rng = Replica(), random.Random(5)
    async with local_server(database_url, model, settings, make=make, commit=replica.commit) as server:
        clients = {}
        async with server.client("k-ops") as ops:
            for name in NAMES:
                assert (await ops.post("/v1/projects", json={"name": name})).status_code == 201
                key = {"name": "all", "scopes": ["admin"], "project": name}
                clients[name] = server.client((await ops.post("/v1/api_keys", json=key)).json()["secret"])
            made = {name: await live_as(clients[name]) for name in NAMES}
            leaks = []
            for name, (own, edit_set) in made.items():
                leaks += await look_as(clients[name], name, own, edit_set)
                leaks += sorted(replica.edits_of(edit_set) ^ own)
                for other in rng.sample([each for each in NAMES if each != name], min(5, TENANTS - 1)):
                    foreign = rng.choice(sorted(made[other][0]))
                    leaks += await reach(clients[name], foreign, made[other][1])
                    leaks += sorted(replica.picks_of(edit_set, foreign) ^ own)
            assert (await ops.get("/v1/edits")).json()["data"] == [], "the operator is a tenant like others"
        for client in clients.values():
            await client.aclose()
    figure(f"{TENANTS} tenants x {EDITS} edits: {len(leaks)} leaks, {time.monotonic() - started:.0f} s")
    assert leaks == []


def test_equal_prompts_have_cache_blocks_of_their_own():
    """Also where a caller chooses another tenant's salt."""
    body = {"model": "m", "messages": [{"role": "user", "content": "the same"}]}
    salts = {
        json.loads(parse_body("/v1/chat/completions", json.dumps(body | extra).encode(), salt=name).body)["cache_salt"]
        for name in NAMES
        for extra in ({}, {"cache_salt": NAMES[0]}, {"cache_salt": NAMES[1]})
    }
    assert len(salts) == 3 * TENANTS
