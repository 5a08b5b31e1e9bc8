"""Neither edit text nor keys reach the server's log at INFO, whatever goes wrong."""

import pytest

from tests.e2e.conftest import ACME, ZEN, add, ask

pytestmark = [pytest.mark.e2e, pytest.mark.vllm, pytest.mark.ray]

SENTINEL = "Xylographer Quintessa"


def test_log_has_no_text_and_no_key(running, admin, edit_set):
    edit = add(admin, edit_set, f"The head of ACME is {SENTINEL}.")
    ask(running.chat(), edit_set=edit_set, prompt=f"Who is {SENTINEL}?")
    admin.post("/v1/edits", json={"text": SENTINEL * 500})
    admin.post("/v1/edits", json={"text": SENTINEL, "metadata": {SENTINEL: 7}})
    admin.post("/v1/edits", json={"txt": SENTINEL})
    admin.post("/v1/edits/import", content=f'{{"custom_id": "a", "text": "{SENTINEL}", "x": 1}}'.encode())
    with running.raw_chat() as client:
        client.post("/v1/chat/completions", json={"model": "incomes", "messages": [{"role": SENTINEL}]})
    admin.post(f"/v1/edits/{edit['id']}/retire")
    log = running.log()
    assert "Ray started" in log  # the log is at INFO, and it is the right file
    for secret in (SENTINEL, ACME, ZEN):
        assert secret not in log


def test_error_answers_do_not_repeat_the_text(admin):
    answer = admin.post("/v1/edits", json={"text": SENTINEL * 500})
    assert answer.status_code == 413
    assert SENTINEL not in answer.text
    assert SENTINEL not in admin.post("/v1/edits", json={"text": [SENTINEL]}).text
