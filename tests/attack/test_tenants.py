"""Many tenants write and ask at the same time, with bad requests in between: nobody sees another's edits."""

import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.attack.conftest import CHAT, IS_LONG, check_refusal, note

pytestmark = [pytest.mark.attack, pytest.mark.e2e, pytest.mark.vllm, pytest.mark.ray, pytest.mark.timeout(1800)]

TENANTS, EDITS = (50, 100) if IS_LONG else (5, 12)
NAMES = tuple(f"tenant-{i}" for i in range(TENANTS))
BAD = [
    {"stop": 5},
    {"edits": {"edit_set": "nowhere"}},
    {"temperature": -1},
    {"n": 0},
    {"max_tokens": 10**6},
    {"edit": 1},
]
ATTRIBUTED = {**CHAT, "return_edit_attributions": True}


@pytest.fixture(scope="module")
def crowd(tmp_path_factory, start):
    with start(tmp_path_factory.mktemp("crowd"), NAMES) as target:
        yield target


def live_as(target, tenant):
    """Add edits with bad requests between them; returns the ids."""
    rng, ids = random.Random(tenant), []
    with target.admin(tenant) as admin, target.chat(tenant) as chat:
        for i in range(EDITS):
            answer = admin.post("/v1/edits", json={"text": f"The code of {tenant} number {i} is {rng.random()}."})
            assert answer.status_code == 202, answer.text
            ids.append(answer.json()["id"])
            answer = chat.post("/v1/chat/completions", json=CHAT | rng.choice(BAD))
            check_refusal(answer)
            assert answer.status_code >= 400
            if i % 10 == 0:
                answer = chat.post("/v1/chat/completions", json=ATTRIBUTED)
                assert {a["edit"] for a in answer.json()["edits"]["applied"]} <= set(ids), answer.text
        answer = admin.post(
            "/v1/edits", json={"text": f"Last of {tenant}."}, params={"wait": "active", "timeout_s": 300}
        )
        assert answer.json()["reached"] == "active", answer.text
        ids.append(answer.json()["id"])
    return ids


def look_as(target, tenant, own, foreign):
    """What the tenant sees at the end; returns whatever is not its own."""
    seen, after, leaks = set(), None, []
    with target.admin(tenant) as admin, target.chat(tenant) as chat:
        while True:
            page = admin.get("/v1/edits", params={"limit": 100} | ({"after": after} if after else {})).json()
            seen |= {item["id"] for item in page["data"]}
            leaks += [item["text"] for item in page["data"] if tenant not in item["text"]]
            after = page["last_id"]
            if not page["has_more"]:
                break
        for name in foreign:
            leaks += [name for path in ("", "/retire") if _status(admin, name, path) != 404]
        answer = chat.post("/v1/chat/completions", json=ATTRIBUTED)
        leaks += [a["edit"] for a in answer.json()["edits"]["applied"] if a["edit"] not in own]
        assert answer.headers["x-incomes-edits"] == str(EDITS + 1)
        status = chat.get("/plugins/incomes/status").json()
        assert (status["edits"], status["edit_sets"]) == (EDITS + 1, 1), status
        (replica,) = admin.get("/v1/replicas").json()["data"]
        assert (replica["lag"], len(replica["positions"])) == (0, 1)
    return leaks + sorted(seen - own) + sorted(own - seen)


def _status(admin, name, path):
    return (admin.post(f"/v1/edits/{name}{path}") if path else admin.get(f"/v1/edits/{name}")).status_code


def test_no_leaks(crowd):
    with ThreadPoolExecutor(min(TENANTS, 16)) as pool:
        made = dict(zip(NAMES, pool.map(lambda t: set(live_as(crowd, t)), NAMES), strict=True))
        everything = sorted(set().union(*made.values()))
        rng = random.Random(3)

        def look(tenant):
            foreign = rng.sample([name for name in everything if name not in made[tenant]], 5)
            return look_as(crowd, tenant, made[tenant], foreign)

        leaks = [leak for found in pool.map(look, NAMES) for leak in found]
    note(attack="tenants", tenants=TENANTS, edits=len(everything), leaks=len(leaks))
    assert leaks == []
    assert all(crowd.pinned(tenant) == 0 for tenant in NAMES)


def test_equal_prompts_of_two_tenants_share_no_blocks(crowd):
    """An answer must not come sooner because another tenant asked the same."""
    prompt = {**CHAT, "messages": [{"role": "user", "content": "w " * 150}], "edits": {"mode": "off"}}
    with crowd.chat(NAMES[0]) as first, crowd.chat(NAMES[1]) as second:

        def hits():
            text = first.get("/metrics").text
            return sum(float(x.split()[-1]) for x in text.splitlines() if x.startswith("vllm:prefix_cache_hits_total"))

        for _ in range(2):
            assert first.post("/v1/chat/completions", json=prompt).status_code == 200
        before = hits()
        assert before > 0
        assert second.post("/v1/chat/completions", json=prompt).status_code == 200
        assert hits() == before
