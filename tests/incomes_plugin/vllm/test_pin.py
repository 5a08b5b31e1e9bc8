"""pin_request: default deny, no smuggling, one secret a request, where the question stands. No engine needed."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from incomes_plugin.errors import EngineLost, InvalidRequest, InvalidValue, SelectionFailed
from incomes_plugin.pool.snapshot import EMPTY_DIGEST, SnapshotRef
from incomes_plugin.selection.question import PromptTemplate
from incomes_plugin.vllm.pin import EditScope, pin_request, prompt_of, use_capture, use_scope
from incomes_plugin.vllm.rows import RequestTag

SNAPSHOT = SnapshotRef("eset_a", 3, "1" * 64, 2)


PROMPT = [9, 8, 3, 11, 12, 13, 4]


class Pins:
    template = PromptTemplate(edit_prefix=(1,), edit_suffix=(2,), turn_prefix=(3,), answer_prefix=(4,))

    def __init__(self) -> None:
        self.pinned: list[tuple[str, str]] = []

    def pin(self, request_id: str, snapshot: SnapshotRef) -> None:
        self.pinned.append((request_id, snapshot.id))


def request(**extra: Any) -> SimpleNamespace:
    params = SimpleNamespace(extra_args=extra or None, skip_reading_prefix_cache=None)
    return SimpleNamespace(
        request_id="r", sampling_params=params, cache_salt=None, resumable=False, prompt_token_ids=list(PROMPT),
        prompt_embeds=None, mm_features=None,
    )  # fmt: skip


def test_without_a_scope_nothing_passes() -> None:
    with pytest.raises(SelectionFailed, match="scope"):
        pin_request(request(), Pins())


@pytest.mark.parametrize(
    "scope", [EditScope(None, None), EditScope("eset_a", SnapshotRef("eset_a", 0, EMPTY_DIGEST, 0))]
)
def test_a_scope_without_edits_leaves_the_request_alone(scope: EditScope) -> None:
    asked = request(theirs=1)
    with use_scope(scope):
        pin_request(asked, None)
    assert vars(asked) == vars(request(theirs=1)) | {"sampling_params": asked.sampling_params}
    assert asked.sampling_params.extra_args == {"theirs": 1}


def test_a_scope_with_edits_pins_and_tags() -> None:
    asked, pins = request(theirs=1), Pins()
    asked.cache_salt = "mine"
    with use_scope(EditScope("eset_a", SNAPSHOT, trace="t")):
        pin_request(asked, pins)
    tag = RequestTag.parse(asked.sampling_params.extra_args)
    assert tag is not None
    assert tag == RequestTag(SNAPSHOT.id, (3, 6), tag.read_salt, "t", at_s=tag.at_s)
    assert abs(tag.at_s - time.time()) < 5
    assert len(tag.read_salt or "") >= 32
    assert asked.sampling_params.extra_args["theirs"] == 1
    assert pins.pinned == [("r", SNAPSHOT.id)]
    assert asked.cache_salt == "mine"


def test_a_tag_says_where_lines_of_the_question_begin() -> None:
    asked, pins = request(), Pins()
    pins.template = replace(Pins.template, line_ends=(9, 11))
    with use_scope(EditScope("eset_a", SNAPSHOT)):
        pin_request(asked, pins)
    tag = RequestTag.parse(asked.sampling_params.extra_args)
    assert tag is not None
    assert (tag.question, tag.lines) == ((3, 6), (1,))


def test_every_request_has_a_secret_of_its_own() -> None:
    salts = set()
    for _ in range(20):
        asked = request()
        with use_scope(EditScope("eset_a", SNAPSHOT)):
            pin_request(asked, Pins())
        salts.add(asked.sampling_params.extra_args["incomes_read_salt"])
        assert asked.cache_salt is None
    assert len(salts) == 20


def test_the_tag_survives_the_wire() -> None:
    tags = (
        RequestTag("s", (0, 5), "secret", "t"),
        RequestTag(capture="c", first=2, count=3),
        RequestTag(snapshot="s", question=(1, 2), force=True, lines=(3, 7)),
    )
    for tag in tags:
        sent = msgspec.msgpack.decode(msgspec.msgpack.encode({"other": 1, **tag.to_extra_args()}))
        assert RequestTag.parse(sent) == tag
    assert RequestTag.parse({"other": 1}) is None
    assert RequestTag.parse(None) is None


@pytest.mark.parametrize("key", ["incomes_snapshot", "incomes_capture", "incomes_force", "incomes_x"])
def test_a_client_cannot_send_our_arguments(key: str) -> None:
    with use_scope(EditScope(None, None)), pytest.raises(InvalidRequest):
        pin_request(request(**{key: "x"}), Pins())


def test_what_cannot_carry_edits_is_refused() -> None:
    with use_scope(EditScope("eset_b", SNAPSHOT)), pytest.raises(InvalidValue):
        pin_request(request(), Pins())
    with use_scope(EditScope("eset_a", SNAPSHOT)):
        with pytest.raises(EngineLost):
            pin_request(request(), None)
        for field, value in {
            "resumable": True,
            "sampling_params": None,
            "prompt_token_ids": None,
            "prompt_embeds": object(),
            "mm_features": [object()],
        }.items():
            unproven = request()
            setattr(unproven, field, value)
            with pytest.raises(InvalidRequest):
                pin_request(unproven, Pins())


def test_a_capture_reads_no_cache_and_needs_no_scope() -> None:
    asked = request()
    with use_capture(RequestTag(capture="c", first=1, count=2)):
        pin_request(asked, None)
    assert asked.sampling_params.skip_reading_prefix_cache is True
    other = request()
    with use_capture(RequestTag(capture="c", first=1, count=2)):
        pin_request(other, None)
    assert len({None, asked.cache_salt, other.cache_salt}) == 3
    assert RequestTag.parse(asked.sampling_params.extra_args) == RequestTag(capture="c", first=1, count=2)


def test_the_prompt_of_a_completion_is_in_its_id() -> None:
    asked = request()
    asked.request_id = "cmpl-a-b-12"
    with use_scope(EditScope("eset_a", SNAPSHOT, trace="t", numbered=True)):
        pin_request(asked, Pins())
    tag = RequestTag.parse(asked.sampling_params.extra_args)
    assert tag is not None
    assert tag.prompt == 12
    with pytest.raises(SelectionFailed, match="which prompt"):
        prompt_of("cmpl-a-beam")
