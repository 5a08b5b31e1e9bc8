"""Everything that cannot be served as asked is a typed error in OpenAI's envelope, never a plain answer."""

import openai
import pytest

from tests.e2e.conftest import ACME, ZEN, add

pytestmark = [pytest.mark.e2e, pytest.mark.vllm, pytest.mark.ray]

CHAT = {"model": "incomes", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
NO_SNAPSHOT = "snap_" + "0" * 24


def check(answer, status, code, param=None):
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == (code, param)
    assert set(error) == {"message", "type", "param", "code"}
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("extra", "status", "code", "param"),
    [
        ({"edits": {"edit_set": "nowhere"}}, 404, "edit_set_not_found", "edits.edit_set"),
        ({"edits": {"snapshot": NO_SNAPSHOT}}, 404, "snapshot_not_found", "edits.snapshot"),
        ({"edits": {"mode": "required"}}, 409, "snapshot_empty", "edits.mode"),
        ({"edits": {"edit-set": "x"}}, 400, "unknown_parameter", "edits.edit-set"),
        ({"edit": {"edit_set": "x"}}, 400, "unknown_parameter", "edit"),
        ({"edits": {"mode": "always"}}, 400, "invalid_value", "edits.mode"),
        ({"vllm_xargs": {"incomes_snapshot": "x"}}, 400, "invalid_value", "vllm_xargs.incomes_snapshot"),
    ],
)
def test_chat(running, stream, extra, status, code, param):
    with running.raw_chat() as client:
        check(client.post("/v1/chat/completions", json=CHAT | extra | {"stream": stream}), status, code, param)


@pytest.mark.parametrize(
    ("path", "code"),
    [(path, "route_not_supported") for path in ("/v1/responses", "/v1/messages", "/invocations")]
    + [(path, "route_not_found") for path in ("/v1/chat/completions/", "/v1/nothing", "/")],
)
def test_routes_without_proof_are_refused(running, path, code):
    with running.raw_chat() as client:
        check(client.post(path, json=CHAT), 404, code)


def test_one_model(running):
    models = running.chat().models
    assert models.retrieve("incomes").id == "incomes"
    with pytest.raises(openai.NotFoundError) as caught:
        models.retrieve("other/model")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_a_route_of_another_method(running):
    with running.raw_chat() as client:
        for method, path in (("GET", "/v1/chat/completions"), ("POST", "/v1/models"), ("DELETE", "/tokenize")):
            check(client.request(method, path), 405, "method_not_allowed")


@pytest.mark.parametrize("key", ["wrong", "acme"])
@pytest.mark.parametrize(
    ("port", "path"), [("chat", "/v1/chat/completions"), ("chat", "/v1/models"), ("admin", "/v1/edits")]
)
def test_wrong_key(running, key, port, path):
    with running.raw_chat(key) if port == "chat" else running.admin(key) as client:
        check(client.post(path, json=CHAT), 401, "invalid_api_key")


def test_errors_of_vllm_pass_with_our_headers(running):
    with running.raw_chat() as client:
        answer = client.post("/v1/chat/completions", json=CHAT | {"temperature": -1})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, 400)
    assert answer.headers["x-incomes-snapshot"]


def test_a_body_that_is_read_beside_the_event_loop(running):
    long = CHAT | {"messages": [{"role": "user", "content": "word " * 30_000}]}
    with running.raw_chat() as client:
        answer = client.post("/v1/chat/completions", json=long)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, 400)
        check(client.post("/v1/chat/completions", json=long | {"edit": 1}), 400, "unknown_parameter", "edit")


def test_another_projects_ids_do_not_exist(running, admin, edit_set):
    edit = add(admin, edit_set, "The warranty is 36 months.")
    with running.admin(ZEN) as zen, running.raw_chat(ZEN) as chat:
        check(zen.get(f"/v1/edits/{edit['id']}"), 404, "edit_not_found")
        check(zen.post(f"/v1/edits/{edit['id']}", json={"text": "x"}), 404, "edit_not_found")
        check(zen.post(f"/v1/edits/{edit['id']}/retire"), 404, "edit_not_found")
        check(zen.get(f"/v1/edit_sets/{edit_set}"), 404, "edit_set_not_found", "edit_set")
        check(zen.delete(f"/v1/edit_sets/{edit_set}"), 404, "edit_set_not_found", "edit_set")
        check(zen.post("/v1/edits", json={"text": "x", "edit_set": edit_set}), 404, "edit_set_not_found", "edit_set")
        answer = chat.post("/v1/chat/completions", json=CHAT | {"edits": {"edit_set": edit_set}})
        check(answer, 404, "edit_set_not_found", "edits.edit_set")
        assert edit["id"] not in zen.get("/v1/edits", params={"limit": 100}).text
        assert edit_set not in zen.get("/v1/replicas").text
    assert admin.get(f"/v1/edits/{edit['id']}").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "code", "param"),
    [
        ("POST", "/v1/edits", {"json": {"txt": "x"}}, 400, "unknown_parameter", "txt"),
        ("POST", "/v1/edits", {"json": {"text": " "}}, 400, "invalid_value", "text"),
        ("POST", "/v1/edits", {"json": {"text": "x" * 5000}}, 413, "edit_too_long", "text"),
        ("POST", "/v1/edits", {"json": {"text": "x"}, "params": {"wiat": "active"}}, 400, "unknown_parameter", "wiat"),
        ("POST", "/v1/edits", {"json": {"text": "x", "edit_set": "nowhere"}}, 404, "edit_set_not_found", "edit_set"),
        ("GET", "/v1/edits", {"params": {"limit": 101}}, 400, "invalid_value", "limit"),
        ("GET", "/v1/edits/edit_nothing", {}, 404, "edit_not_found", None),
        ("GET", "/v1/edit_sets/eset_nothing", {}, 404, "edit_set_not_found", "edit_set"),
        ("POST", "/v1/edit_sets", {"json": {"name": "a b"}}, 400, "invalid_value", "name"),
        ("GET", "/v1/nothing", {}, 404, "route_not_found", None),
        ("PUT", "/v1/edits", {}, 405, "method_not_allowed", None),
    ],
)
def test_admin(admin, method, path, options, status, code, param):
    check(admin.request(method, path, **options), status, code, param)


def test_oversize_names_the_limit(admin):
    message = admin.post("/v1/edits", json={"text": "x" * 5000}).json()["error"]["message"]
    assert "5000 tokens" in message
    assert "at most" in message


def test_probes_need_no_key(running):
    import httpx

    for url in (running.process.chat_url, running.process.admin_url):
        for path in ("/livez", "/readyz", "/health", "/metrics"):
            assert httpx.get(url + path).status_code == 200
    assert ACME not in running.log()
