"""Gist bytes: exact round trip, and every kind of bad bytes refused."""

import pytest
import torch

from incomes_plugin.errors import FingerprintMismatch, GistFormatError
from incomes_plugin.gist import Gist, GistShape, dump_gists, load_gists


def gist(edit_id: str, gists: int, dtype: torch.dtype = torch.bfloat16) -> Gist:
    return Gist(edit_id, 3, torch.randn(2, gists, 2, 8).to(dtype), torch.randn(2, gists, 2, 8).to(dtype))


def test_round_trip_keeps_every_bit_and_the_order():
    gists = [gist("edit_b", 5), gist("edit_a", 1), gist("edit_c", 12)]
    back = load_gists(dump_gists(gists, "mf_1"), "mf_1")
    assert [(g.edit_id, g.version, g.num_gists) for g in back] == [
        ("edit_b", 3, 5),
        ("edit_a", 3, 1),
        ("edit_c", 3, 12),
    ]
    for made, read in zip(gists, back, strict=True):
        assert torch.equal(made.keys, read.keys)
        assert torch.equal(made.values, read.values)


def test_gist_of_another_model_is_refused_with_both_names():
    with pytest.raises(FingerprintMismatch, match=r"mf_1.*mf_2"):
        load_gists(dump_gists([gist("edit_a", 2)], "mf_1"), "mf_2")


@pytest.mark.parametrize("damage", [b"", b"not safetensors at all", b"\x10" + b"\0" * 40])
def test_foreign_bytes_are_refused(damage: bytes):
    with pytest.raises(GistFormatError):
        load_gists(damage, "mf_1")


def test_truncated_blob_is_refused():
    blob = dump_gists([gist("edit_a", 2)], "mf_1")
    with pytest.raises(GistFormatError):
        load_gists(blob[:-10], "mf_1")


def test_bytes_per_gist_counts_keys_and_values_of_all_layers():
    shape = GistShape(layers=(2, 3), max_gists=4, num_kv_heads=2, head_dim=64)
    assert shape.bytes_per_gist(torch.bfloat16) == 2 * 2 * 2 * 64 * 2
