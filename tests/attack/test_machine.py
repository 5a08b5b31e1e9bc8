"""Adds, replaces, retires, sets that come and go, chats good, bad, aborted: after each step pins and pool are exact."""

import json
import time

import httpx
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.attack.conftest import CHAT, IS_LONG, check_refusal

pytestmark = [pytest.mark.attack, pytest.mark.e2e, pytest.mark.vllm, pytest.mark.ray, pytest.mark.timeout(1800)]

EXAMPLES, STEPS = (25, 40) if IS_LONG else (3, 15)
ACTIVE = {"wait": "active", "timeout_s": 60}
BAD = [
    b'{"model": "incomes", "messages": [{"role": "user", "content": "x"}], "stop": "\\ud800"}',
    json.dumps({**CHAT, "max_tokens": 10**6}).encode(),
    json.dumps({**CHAT, "top_k": 2**63}).encode(),
    json.dumps({**CHAT, "logit_bias": {"999999": 1}}).encode(),
    json.dumps({**CHAT, "structured_outputs": {"regex": "("}}).encode(),
    json.dumps({**CHAT, "allowed_token_ids": [10**9]}).encode(),
    json.dumps({**CHAT, "n": 3, "temperature": 0}).encode(),
]


def eventually(condition, what):
    end_s = time.monotonic() + 15
    while not (value := condition())[0]:
        assert time.monotonic() < end_s, f"{what}: {value}"
        time.sleep(0.05)


@pytest.fixture
def machine(target):
    class Machine(RuleBasedStateMachine):
        sets: dict[str, dict[str, str]]

        @initialize()
        def begin(self):
            self.admin, self.chat = target.admin(), target.chat()
            self.sets = {}
            self.start_bytes = target.metric("pool_used_bytes")
            self.start_edits = target.metric("pool_edits")

        def _some(self, pick, of):
            return sorted(of)[pick % len(of)]

        @rule()
        def create_set(self):
            name = f"s{time.monotonic_ns()}"
            self.sets[self.admin.post("/v1/edit_sets", json={"name": name}).json()["id"]] = {}

        @precondition(lambda self: self.sets)
        @rule(pick=st.integers(0, 9), text=st.text(min_size=1, max_size=30).filter(str.strip))
        def add(self, pick, text):
            edit_set = self._some(pick, self.sets)
            answer = self.admin.post("/v1/edits", json={"text": text, "edit_set": edit_set}, params=ACTIVE)
            check_refusal(answer)
            if answer.status_code == 201:
                self.sets[edit_set][answer.json()["id"]] = text

        @precondition(lambda self: any(self.sets.values()))
        @rule(
            pick=st.integers(0, 9), text=st.sampled_from(["Short.", "A text that is somewhat longer than the other."])
        )
        def replace(self, pick, text):
            edit = self._some(pick, [e for edits in self.sets.values() for e in edits])
            answer = self.admin.post(f"/v1/edits/{edit}", json={"text": text}, params=ACTIVE)
            assert answer.status_code == 200, answer.text

        @precondition(lambda self: any(self.sets.values()))
        @rule(pick=st.integers(0, 9), twice=st.booleans())
        def retire(self, pick, twice):
            edit = self._some(pick, [e for edits in self.sets.values() for e in edits])
            for _ in range(1 + twice):
                answer = self.admin.post(f"/v1/edits/{edit}/retire", params={"timeout_s": 60})
                assert (answer.status_code, answer.json()["reached"]) == (200, "active"), answer.text
            for edits in self.sets.values():
                edits.pop(edit, None)

        @precondition(lambda self: self.sets)
        @rule(pick=st.integers(0, 9))
        def delete_set(self, pick):
            edit_set = self._some(pick, self.sets)
            assert self.admin.delete(f"/v1/edit_sets/{edit_set}", params={"timeout_s": 60}).status_code == 200
            del self.sets[edit_set]

        @precondition(lambda self: self.sets)
        @rule(pick=st.integers(0, 9), extra=st.sampled_from([{}, {"n": 2}, {"return_edit_attributions": True}]))
        def good_chat(self, pick, extra):
            edit_set = self._some(pick, self.sets)
            answer = self.chat.post("/v1/chat/completions", json={**CHAT, **extra, "edits": {"edit_set": edit_set}})
            assert answer.status_code == 200, answer.text
            assert answer.headers["x-incomes-edits"] == str(len(self.sets[edit_set]))

        @precondition(lambda self: self.sets)
        @rule(pick=st.integers(0, 9), body=st.sampled_from(BAD))
        def bad_chat(self, pick, body):
            body = body[:-1] + b', "edits": {"edit_set": "' + self._some(pick, self.sets).encode() + b'"}}'
            answer = self.chat.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
            check_refusal(answer)

        @precondition(lambda self: self.sets)
        @rule(pick=st.integers(0, 9), stream=st.booleans(), traced=st.booleans())
        def disconnect(self, pick, stream, traced):
            body = {**CHAT, "max_tokens": 300, "stream": stream, "return_edit_attributions": traced}
            body["edits"] = {"edit_set": self._some(pick, self.sets)}
            if stream:
                with self.chat.stream("POST", "/v1/chat/completions", json=body) as answer:
                    next(answer.iter_lines())
                return
            with pytest.raises(httpx.TimeoutException):
                self.chat.post("/v1/chat/completions", json={**body, "n": 8}, timeout=0.05)

        @invariant()
        def nothing_leaks(self):
            if not hasattr(self, "admin"):
                return
            live = sum(map(len, self.sets.values()))
            eventually(lambda: ((pins := target.pinned()) == 0, pins), "pinned requests")
            eventually(
                lambda: ((edits := target.metric("pool_edits")) == self.start_edits + live, edits, live), "edits"
            )

        def teardown(self):
            if not hasattr(self, "admin"):
                return
            for edit_set in self.sets:
                self.admin.delete(f"/v1/edit_sets/{edit_set}", params={"timeout_s": 60})
            eventually(
                lambda: ((used := target.metric("pool_used_bytes")) == self.start_bytes, used, self.start_bytes),
                "bytes",
            )
            self.admin.close()
            self.chat.close()

    return Machine


def test_machine(machine):
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, suppress_health_check=checks
        ),
    )
