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
from incomes_plugin.gist.types import Packed


def gist(edit_id: str, tokens: int) -> Gist:
    parts = (torch.randn(tokens, 12), torch.randn(tokens, 9))
    return Gist(edit_id, 3, *map(Packed.of, parts))


def test_round_trip_keeps_every_bit_and_the_order() -> None:
    gists = [gist("edit_b", 5), gist("edit_a", 1), gist("edit_c", 12)]
    blob = dump_gists(gists, "mf_1")
    assert read_header(blob) == {
        "format": 3, "fingerprint": "mf_1", "gists": [["edit_b", 3], ["edit_a", 3], ["edit_c", 3]],
    }  # fmt: skip
    for made, found in zip(gists, load_gists(blob, "mf_1"), strict=True):
        assert made.edit == found.edit
        for part in ("features", "latents"):
            assert torch.equal(getattr(made, part).data, getattr(found, part).data)
            assert torch.equal(getattr(made, part).scale, getattr(found, part).scale)


def test_verbatim_gists_are_marked_and_others_are_written_as_ever() -> None:
    gists = [gist("edit_b", 5), replace(gist("edit_a", 1), verbatim=True)]
    blob = dump_gists(gists, "mf_1")
    assert [found.verbatim for found in load_gists(blob, "mf_1")] == [False, True]
    assert [found.verbatim for found in load_gists(emptied(blob), "mf_1")] == [False, True]
    assert "verbatim" not in read_header(dump_gists(gists[:1], "mf_1"))
    for wrong in ([2], "x", [-1], [None]):
        with pytest.raises(GistFormatError, match="marks"):
            load_gists(rewritten({"verbatim": wrong}), "mf_1")


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
    ],
)
def test_damaged_blobs_are_refused(blob) -> None:
    with pytest.raises(GistFormatError, match="compress the edit again"):
        load_gists(blob(), "mf_1")
