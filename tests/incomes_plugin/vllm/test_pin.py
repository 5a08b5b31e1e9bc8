"""pin_request: default deny, no smuggling, salts that separate tenants and contents. No engine needed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from incomes_plugin.errors import EngineLost, InvalidRequest, InvalidValue, SelectionFailed
from incomes_plugin.pool.snapshot import EMPTY_DIGEST, SnapshotRef
from incomes_plugin.vllm.pin import EditScope, cache_salt, pin_request, use_capture, use_scope
from incomes_plugin.vllm.rows import RequestTag

SNAPSHOT = SnapshotRef("eset_a", 3, "1" * 64, 2)


class Pins:
    salt_key = b"secret"

    def __init__(self) -> None:
        self.pinned: list[tuple[str, str]] = []

    def pin(self, request_id: str, snapshot: SnapshotRef) -> None:
        self.pinned.append((request_id, snapshot.id))


def request(**extra: Any) -> SimpleNamespace:
    params = SimpleNamespace(extra_args=extra or None, skip_reading_prefix_cache=None)
    return SimpleNamespace(request_id="r", sampling_params=params, cache_salt=None, resumable=False)


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


def test_a_scope_with_edits_pins_tags_and_salts() -> None:
    asked, pins = request(theirs=1), Pins()
    with use_scope(EditScope("eset_a", SNAPSHOT, trace="t")):
        pin_request(asked, pins)
    tag = RequestTag(snapshot=SNAPSHOT.id, trace="t")
    assert asked.sampling_params.extra_args == {"theirs": 1, **tag.to_extra_args()}
    assert RequestTag.parse(asked.sampling_params.extra_args | {}) is not None
    assert pins.pinned == [("r", SNAPSHOT.id)]
    assert asked.cache_salt == cache_salt(b"secret", SNAPSHOT, "")


def test_the_tag_survives_the_wire() -> None:
    for tag in (RequestTag("s", "t"), RequestTag(capture="c", num_gists=3), RequestTag(snapshot="s")):
        assert RequestTag.parse({"other": 1, **tag.to_extra_args()}) == tag
    assert RequestTag.parse({"other": 1}) is None
    assert RequestTag.parse(None) is None


@pytest.mark.parametrize("key", ["incomes_snapshot", "incomes_capture", "incomes_x"])
def test_a_client_cannot_send_our_arguments(key: str) -> None:
    with use_scope(EditScope(None, None)), pytest.raises(InvalidRequest):
        pin_request(request(**{key: "x"}), Pins())


def test_what_cannot_carry_edits_is_refused() -> None:
    with use_scope(EditScope("eset_b", SNAPSHOT)), pytest.raises(InvalidValue):
        pin_request(request(), Pins())
    with use_scope(EditScope("eset_a", SNAPSHOT)):
        with pytest.raises(EngineLost):
            pin_request(request(), None)
        streaming = request()
        streaming.resumable = True
        with pytest.raises(InvalidRequest):
            pin_request(streaming, Pins())
        pooling = request()
        pooling.sampling_params = None
        with pytest.raises(InvalidRequest):
            pin_request(pooling, Pins())


def test_a_capture_reads_no_cache_and_needs_no_scope() -> None:
    asked = request()
    with use_capture(RequestTag(capture="c", num_gists=2)):
        pin_request(asked, None)
    assert asked.sampling_params.skip_reading_prefix_cache is True
    other = request()
    with use_capture(RequestTag(capture="c", num_gists=2)):
        pin_request(other, None)
    assert len({None, asked.cache_salt, other.cache_salt}) == 3
    assert RequestTag.parse(asked.sampling_params.extra_args) == RequestTag(capture="c", num_gists=2)


def test_salts_differ_by_tenant_content_user_and_engine() -> None:
    other_set = SnapshotRef("eset_b", 3, "1" * 64, 2)
    other_content = SnapshotRef("eset_a", 3, "2" * 64, 2)
    same_content = SnapshotRef("eset_a", 9, "1" * 64, 2)
    salt = cache_salt(b"k", SNAPSHOT, "")
    assert salt == cache_salt(b"k", same_content, "")
    different = [(b"k", other_set, ""), (b"k", other_content, ""), (b"k", SNAPSHOT, "u"), (b"j", SNAPSHOT, "")]
    assert len({salt, *(cache_salt(*arguments) for arguments in different)}) == 5


@pytest.mark.vllm
@pytest.mark.filterwarnings("ignore")
def test_salts_obey_vllm() -> None:
    from vllm.entrypoints.generate.base.protocol import validate_cache_salt

    validate_cache_salt(cache_salt(b"k", SNAPSHOT, "@/\\"))
