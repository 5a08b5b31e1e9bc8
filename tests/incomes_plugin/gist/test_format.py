"""Gist bytes: exact round trip, and every kind of bad bytes refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load, save

from incomes_plugin.errors import FingerprintMismatch, GistFormatError
from incomes_plugin.gist import Gist, dump_gists, load_gists, read_header
from incomes_plugin.gist.header import emptied
from incomes_plugin.gist.spelling import Spelling
from incomes_plugin.gist.types import Packed


def gist(edit_id: str, tokens: int) -> Gist:
    parts = (torch.randn(tokens, 12), torch.randn(tokens, 9))
    own = [(100 + place, place, place - 1) for place in range(tokens)]
    return Gist(edit_id, 3, *map(Packed.of, parts), spelling=Spelling.of([*own, (70_000, 0, -1), (7, 0, tokens)]))


def test_round_trip_keeps_every_bit_and_the_order() -> None:
    gists = [gist("edit_b", 5), gist("edit_a", 1), gist("edit_c", 12)]
    blob = dump_gists(gists, "mf_1")
    assert read_header(blob) == {
        "format": 4, "fingerprint": "mf_1", "gists": [["edit_b", 3], ["edit_a", 3], ["edit_c", 3]],
    }  # fmt: skip
    for made, found in zip(gists, load_gists(blob, "mf_1"), strict=True):
        assert made.edit == found.edit
        for part in ("features", "latents"):
            assert torch.equal(getattr(made, part).data, getattr(found, part).data)
            assert torch.equal(getattr(made, part).scale, getattr(found, part).scale)
        assert found.spelling.rows == made.spelling.rows
        assert found.num_bytes == made.num_bytes


def test_verbatim_gists_are_marked_and_others_are_written_as_ever() -> None:
    gists = [gist("edit_b", 5), replace(gist("edit_a", 1), verbatim=True)]
    blob = dump_gists(gists, "mf_1")
    assert [found.verbatim for found in load_gists(blob, "mf_1")] == [False, True]
    assert [found.verbatim for found in load_gists(emptied(blob), "mf_1")] == [False, True]
    assert "verbatim" not in read_header(dump_gists(gists[:1], "mf_1"))
    for wrong in ([2], "x", [-1], [None]):
        with pytest.raises(GistFormatError, match="marks"):
            load_gists(rewritten({"verbatim": wrong}), "mf_1")


def test_an_emptied_blob_is_one_token_of_zeros() -> None:
    spelled, unspelled = gist("edit_b", 5), replace(gist("edit_a", 4), spelling=Spelling.of([]))
    found = load_gists(emptied(dump_gists([spelled, unspelled], "mf_1")), "mf_1")
    assert [(gist.num_tokens, gist.spelling.rows) for gist in found] == [(1, [(0, 0, -1)]), (1, [])]


def test_a_blob_of_no_gists_is_one() -> None:
    assert load_gists(dump_gists([], "mf_1"), "mf_1") == []


def test_gist_of_another_model_is_refused_with_both_names() -> None:
    with pytest.raises(FingerprintMismatch, match=r"mf_1.*mf_2.*compress the edit again"):
        load_gists(dump_gists([gist("edit_a", 2)], "mf_1"), "mf_2")


@pytest.mark.parametrize("damage", [b"", b"not safetensors at all", b"\x10" + b"\0" * 40])
def test_foreign_bytes_are_refused(damage: bytes) -> None:
    with pytest.raises(GistFormatError, match="compress the edit again"):
        load_gists(damage, "mf_1")


@pytest.mark.parametrize("end", range(0, 2000, 97))
def test_a_truncated_blob_is_refused(end: int) -> None:
    blob = dump_gists([gist("edit_a", 2)], "mf_1")
    with pytest.raises(GistFormatError, match="compress the edit again"):
        load_gists(blob[: min(end, len(blob) - 1)], "mf_1")


def rewritten(header: dict[str, object] | None = None, tensors: dict[str, torch.Tensor | None] | None = None) -> bytes:
    """A blob of one gist with another header and other tensors (None: taken out)."""
    blob = dump_gists([gist("edit_a", 2)], "mf_1")
    changed = {name: tensor for name, tensor in (load(blob) | (tensors or {})).items() if tensor is not None}
    return save(changed, metadata={"incomes": json.dumps(read_header(blob) | (header or {}))})


def at(places: list[int], links: list[int] | None = None) -> torch.Tensor:
    return torch.tensor([places, links or [0] * len(places)]).T.short().contiguous()


@pytest.mark.parametrize(
    "blob",
    [
        pytest.param(lambda: rewritten({"format": 1}), id="an older format"),
        pytest.param(lambda: rewritten({"gists": []}), id="names too few"),
        pytest.param(lambda: rewritten({"gists": [["edit_a", 3], ["edit_b", 1]]}), id="names too many"),
        pytest.param(lambda: rewritten({"gists": None}), id="names nothing"),
        pytest.param(lambda: rewritten({"gists": [["edit_a"]]}), id="names no version"),
        pytest.param(lambda: rewritten({"gists": [["edit_a", "x"]]}), id="a version that is no number"),
        pytest.param(lambda: rewritten(tensors={"0.latents": None}), id="a tensor is gone"),
        pytest.param(lambda: rewritten(tensors={"0.latents": None, "1.latents": torch.zeros(1)}), id="another name"),
        pytest.param(lambda: rewritten(tensors={"0.latents": torch.zeros(2, 9)}), id="float data"),
        pytest.param(lambda: rewritten(tensors={"0.latents_scale": torch.zeros(2)}), id="float32 scales"),
        pytest.param(
            lambda: rewritten(tensors={"0.latents_scale": torch.zeros(3).half()}), id="scales of another shape"
        ),
        pytest.param(lambda: rewritten(tensors={"0.spelled": None, "x": torch.zeros(1)}), id="no spelling"),
        pytest.param(lambda: rewritten(tensors={"0.spelled": torch.zeros(4)}), id="tokens of another type"),
        pytest.param(lambda: rewritten(tensors={"0.spelled_at": torch.zeros(4, 2)}), id="places of another type"),
        pytest.param(lambda: rewritten(tensors={"0.spelled_at": at([0] * 3)}), id="places too few"),
        pytest.param(lambda: rewritten(tensors={"0.spelled": torch.tensor([1, 1, 1, -1]).int()}), id="no token"),
        pytest.param(lambda: rewritten(tensors={"0.spelled_at": at([0, 2, 0, 0])}), id="a place behind the edit"),
        pytest.param(lambda: rewritten(tensors={"0.spelled_at": at([0, -1, 0, 0])}), id="a place before the edit"),
        pytest.param(lambda: rewritten(tensors={"0.spelled_at": at([0] * 4, [0, 2, 0, 0])}), id="a link to itself"),
        pytest.param(lambda: rewritten(tensors={"0.spelled_at": at([0] * 4, [0, -1, 0, 0])}), id="a link to nothing"),
    ],
)
def test_damaged_blobs_are_refused(blob) -> None:
    with pytest.raises(GistFormatError, match="compress the edit again"):
        load_gists(blob(), "mf_1")
