"""Edits that contradict one another, on the real server with the real model: found at the write, decided as asked."""

import pytest

from tests.e2e.conftest import add, ask

pytestmark = [pytest.mark.e2e, pytest.mark.vllm, pytest.mark.ray]

OLD, NEW = "The warranty of the Korvan pump is 36 months.", "The warranty of the Korvan pump is 24 months."
PARAPHRASED = "The Korvan pump has a warranty of 24 months."
NEIGHBOURS = (
    "The warranty of the Veltan pump is 24 months.",
    "The Korvan pump weighs 24 kilograms.",
    "The mother tongue of Danielle Darrieux is French.",
)


@pytest.fixture(scope="module")
def admin(real):
    with real.admin() as client:
        yield client


@pytest.fixture
def edit_set(admin, request):
    answer = admin.post("/v1/edit_sets", json={"name": request.node.name[5:60]})
    return answer.json()["id"]


def test_a_contradiction_is_told_from_a_duplicate_and_from_mere_neighbours(admin, edit_set):
    old = add(admin, edit_set, OLD)
    for text in NEIGHBOURS:
        assert (added := add(admin, edit_set, text))["conflicts"] == [], text
        assert added["conflict_check"] == "done"
    (found,) = add(admin, edit_set, NEW)["conflicts"]
    assert (found["edit_id"], found["kind"]) == (old["id"], "contradiction")
    kinds = {each["kind"] for each in add(admin, edit_set, PARAPHRASED)["conflicts"]}
    assert kinds == {"contradiction", "duplicate"}


def test_a_trial_says_what_an_edit_would_conflict_with(admin, edit_set):
    old = add(admin, edit_set, OLD)
    body = {"text": NEW, "edit_set": edit_set}
    for route, more in (("validate", {}), ("preview", {"neighbours": 0, "max_tokens": 4})):
        (found,) = admin.post(f"/v1/edits/{route}", json=body | more).json()["conflicts"]
        assert (found["edit_id"], found["kind"]) == (old["id"], "contradiction")
    assert admin.post("/v1/edits/validate", json=body | {"supersedes": [old["id"]]}).json()["conflicts"] == []
    elsewhere = admin.post("/v1/edit_sets", json={"name": "elsewhere"}).json()["id"]
    assert admin.post("/v1/edits/validate", json=body | {"edit_set": elsewhere}).json()["conflicts"] == []


def test_what_supersedes_is_what_is_answered(real, admin, edit_set):
    old = add(admin, edit_set, OLD)
    new = add(admin, edit_set, NEW, on_conflict="supersede")
    assert new["supersedes"] == [old["id"]]
    answer = ask(real.chat(), prompt="How long is the warranty of the Korvan pump?", max_tokens=24, edit_set=edit_set)
    said = answer.parse().choices[0].message.content
    assert "24" in said
    assert "36" not in said


def test_a_refused_edit_changes_nothing(admin, edit_set):
    add(admin, edit_set, OLD)
    body = {"text": NEW, "edit_set": edit_set, "on_conflict": "reject"}
    refused = admin.post("/v1/edits", json=body, params={"wait": "active", "timeout_s": 60})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflicting_edit")
    assert admin.get(f"/v1/edit_sets/{edit_set}").json()["num_edits"] == 1
