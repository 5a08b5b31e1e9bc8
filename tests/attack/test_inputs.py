"""Every field of vLLM's request models with every kind of wrong value: never a 500, never a pin that stays."""

import json
import random
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from incomes_server.api.chat.routes import known_fields

from tests.attack.conftest import CHAT, IS_LONG, check_refusal, note

pytestmark = [pytest.mark.attack, pytest.mark.e2e, pytest.mark.vllm, pytest.mark.ray]


def nested(depth):
    return json.loads("[" * depth + "]" * depth)


SURROGATE = "\ud800"
VALUES = [
    None,
    True,
    -1,
    0,
    1,
    2**31,
    2**63,
    2**64,
    10**400,
    -(2**63) - 1,
    0.5,
    -1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    SURROGATE,
    "\x00",
    "a" * 10_000,
    [],
    [None],
    [[1]],
    ["x", 1],
    [SURROGATE],
    [2**63],
    {},
    {"x": 1},
    {"type": "json_schema"},
    {"type": "json_object"},
    {SURROGATE: 1},
    {"a": {"b": {"c": SURROGATE}}},
    {"json": {"$ref": "#"}, "regex": "(", "choice": []},
    nested(50),
    nested(70),
]
ROUTES = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"model": "incomes", "prompt": "How long is the warranty?", "max_tokens": 4},
}
SIZES = {"n": 64, "best_of": 64, "max_tokens": 64, "max_completion_tokens": 64, "min_tokens": 64}
"""Fields whose huge values are right, and only take long."""


DOCUMENT = json.loads((Path(__file__).parents[2] / "docs/openapi.json").read_text())
OPERATIONS = {o.ok().label: o.ok() for o in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations()}


def cases():
    found = []
    for path in ROUTES:
        for field in sorted(known_fields(path)):
            found += [(path, field, value) for value in VALUES]
    if not IS_LONG:
        found = random.Random(13).sample(found, 500)
    return found


def test_no_field_makes_a_500(target):
    with target.admin() as admin:
        admin.post("/v1/edits", json={"text": "The warranty is 36 months."}, params={"wait": "active"})
    statuses = {}
    with target.chat() as client:
        for path, field, value in cases():
            if field in SIZES and value in (2**31, 2**63):
                continue
            body = json.dumps({**ROUTES[path], field: value}).encode()
            headers = {"content-type": "application/json"}
            if field == "stream" and value is True:
                continue
            try:
                answer = client.post(path, content=body, headers=headers)
                check_refusal(answer)
            except Exception as error:
                raise AssertionError(f"{path}: {field}={value!r:.100}") from error
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
            if value is SURROGATE:
                assert answer.status_code == 400
        assert client.get("/v1/models").status_code == 200
    note(attack="fields", requests=sum(statuses.values()), statuses=statuses)
    assert statuses.keys() <= {200, 400, 404, 409, 413, 422, 501}, statuses
    assert target.pinned() == 0


@pytest.mark.parametrize("port", ["chat", "admin"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"\\ud800"',
        b"[" * 1000 + b"]" * 1000,
        b'{"\\ud800": 1}',
        b'{"text": "\\ud800"}',
        b'{"text": 1e999}',
        b'{"text": ' + b"9" * 6000 + b"}",
        b"\xff\xfe\x00",
        b"\x00",
        '{"text": "x"}'.encode("utf-16"),
    ],
)
@pytest.mark.parametrize("content_type", [None, "application/json", "text/plain", "application/x-www-form-urlencoded"])
def test_no_body_makes_a_500(target, port, body, content_type):
    path = {"chat": "/v1/chat/completions", "admin": "/v1/edits"}[port]
    headers = {} if content_type is None else {"content-type": content_type}
    with getattr(target, port)() as client:
        answer = client.post(path, content=body, headers=headers)
        check_refusal(answer)
        assert answer.status_code in (400, 415, 422), answer.text
        assert not str(answer.json()["error"].get("param")).isdigit()
        assert client.post(path, content=body, headers=headers).status_code == answer.status_code


QUERIES = ["limit=99999999999999999999", "limit=-1", "limit=%FF", "limit=NaN", "limit=1&limit=2", "after=%ED%A0%80"]
QUERIES += ["a[]=1", "status=%00", "edit_set=%00", "edit_set=%ED%A0%80", "order=%E2%80%A8"]


@pytest.mark.parametrize("query", [*QUERIES, "after=" + "x" * 5000])
def test_no_query_makes_a_500(target, query):
    with target.admin() as client:
        for path in ("/v1/edits", "/v1/edit_sets", "/v1/replicas", "/v1/edits/x", "/v1/edit_sets/%ED%A0%80"):
            check_refusal(client.get(f"{path}?{query}"))


@pytest.mark.parametrize(
    "path", ["/tokenize", "/detokenize", "/v1/models/%ED%A0%80", "/v1/models/" + "x" * 4000, "/%00"]
)
def test_no_other_route_makes_a_500(target, path):
    with target.chat() as client:
        for body in ({}, {"prompt": "\ud800"}, {"prompt": 1}, {"tokens": [2**40]}, {"tokens": [-1]}, {"tokens": "x"}):
            content = json.dumps(body).encode()
            check_refusal(client.post(path, content=content, headers={"content-type": "application/json"}))
        check_refusal(client.get(path))


def test_every_line_of_an_import_is_answered(target):
    lines = [
        b'{"custom_id": "a", "text": "Good."}',
        b'{"custom_id": "b", "text": ' + b"[" * 3000 + b"]" * 3000 + b"}",
        b'{"custom_id": "\\ud800", "text": "x"}',
        b'{"custom_id": "c", "text": "\\ud800"}',
        b"\xff",
        b'{"custom_id": "d", "text": "x", "metadata": {"a": 1e999}}',
        b'{"custom_id": "e", "text": "Good too."}',
    ]
    with target.admin() as client:
        result = client.post("/v1/edits/import", content=b"\n".join(lines), params={"wait": "active"}).json()
    counts = result["request_counts"]
    assert (counts["total"], counts["completed"], counts["failed"]) == (7, 2, 5)
    assert [line["error"] is None for line in result["data"]] == [True, *[False] * 5, True]


@pytest.mark.parametrize("label", OPERATIONS)
def test_the_documented_admin_port_takes_anything(target, label):
    @settings(max_examples=100 if IS_LONG else 5, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=OPERATIONS[label].as_strategy())
    def attack(case):
        if "timeout_s" in (case.query or {}):
            case.query["timeout_s"] = 0.2
        headers = {**(case.headers or {}), "authorization": f"Bearer {target.keys['zen']}"}
        answer = case.call(base_url=target.process.admin_url, headers=headers, timeout=60)
        assert answer.headers.get("x-request-id")
        assert answer.status_code != 500, answer.content[:500]
        if answer.status_code >= 400:
            assert {"message", "type", "code", "param"} == answer.json()["error"].keys()

    attack()
