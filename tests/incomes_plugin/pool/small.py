"""A small adapter and random gists for the tests of the pool."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from zlib import crc32

import torch

from incomes_plugin.gist.edit import EditKey
from incomes_plugin.gist.spelling import Spelling
from incomes_plugin.gist.types import Gist, GistShape
from incomes_plugin.model.adapter import BaseModel, EditAdapter
from incomes_plugin.pool.gists import GistPool, PooledSnapshot
from incomes_plugin.pool.snapshot import SnapshotDelta, SnapshotRef
from incomes_plugin.pool.table import RouteTable, route_rows
from incomes_plugin.selection.codec import Codec
from incomes_plugin.selection.conflicts import Judge
from incomes_plugin.selection.copying import Copier
from incomes_plugin.selection.question import PromptTemplate
from incomes_plugin.selection.reading import Reader
from incomes_plugin.selection.routing import Router
from incomes_plugin.selection.rules import RoutingRules
from incomes_plugin.selection.verifier import Verifier

CPU = torch.device("cpu")
SHAPE = GistShape((0, 1), (1, 2), num_kv_heads=2, head_dim=4, latent_dim=20)
HEADS = 4
HIDDEN = 12


@cache
def adapter() -> EditAdapter:
    torch.manual_seed(0)
    modules = (
        Router(SHAPE.feature_dim, 8, 6),
        Verifier(SHAPE.feature_dim, len(SHAPE.feature_layers), width=8, heads=2, layers=1),
        Judge(),
        Codec(SHAPE),
        Reader(SHAPE, HEADS),
        Copier(HIDDEN, SHAPE.latent_dim, copy_dim=6),
    )
    for module in modules:
        module.eval().requires_grad_(False)
    zeros = torch.zeros(SHAPE.feature_dim)
    template = PromptTemplate((1,), (2,), (3,), (4,))
    return EditAdapter(
        BaseModel("tiny", "bf_0"), SHAPE, HEADS, template, 64, zeros, zeros + 1, *modules, RoutingRules()
    )


def gist(edit_id: str, num_tokens: int, version: int = 1) -> Gist:
    generator = torch.Generator().manual_seed(crc32(f"{edit_id}/{version}".encode()))
    features = torch.randn(num_tokens, SHAPE.feature_dim, generator=generator)
    heads = torch.randn(2, num_tokens, len(SHAPE.layers), SHAPE.num_kv_heads, SHAPE.head_dim, generator=generator)
    return adapter().gist(edit_id, version, features, heads[0], heads[1], Spelling.plain(range(num_tokens)))


def decoded(found: Gist) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of a gist, as a request reads them."""
    with torch.inference_mode():
        return adapter().codec.decode(found.latents.unpack())


class Named(SnapshotRef):
    """A snapshot whose digest is its id: tests name snapshots as they like."""

    @property
    def id(self) -> str:
        return self.digest


class SmallPool(GistPool):
    """A pool whose commits are spelled out."""

    def commit(  # type: ignore[override]
        self,
        edit_set: str,
        base: str | None,
        snapshot_id: str,
        num_edits: int,
        added: Sequence[Gist],
        removed: Sequence[EditKey],
        ages: Sequence[int] = (),
        label: str | None = None,
    ) -> PooledSnapshot:
        snapshot = Named(edit_set, 1, snapshot_id, num_edits)
        return super().commit(SnapshotDelta(base, snapshot, tuple(added), tuple(removed), tuple(ages), label=label))


def pool_of(
    capacity_bytes: int = 1 << 30,
    *,
    dtype: torch.dtype = torch.float32,
    device_bytes: int = 1 << 20,
    index_from_edits: int = 1 << 30,
) -> SmallPool:
    return SmallPool(
        adapter(),
        capacity_bytes=capacity_bytes,
        device=CPU,
        dtype=dtype,
        device_bytes=device_bytes,
        index_from_edits=index_from_edits,
    )


def keys_by_edit(table: RouteTable) -> dict[EditKey, torch.Tensor]:
    """Rows of route keys `[rows, W, R]` of every edit."""
    assert table.keys.owners is not None
    assert table.keys.num_edits == len(table.edits)
    assert int((table.keys.owners < len(table.edits)).sum()) == table.owned_rows
    return {edit: table.keys.keys[table.keys.owners == row] for row, edit in enumerate(table.edits)}


def check_table(table: RouteTable, content: dict[EditKey, tuple[Gist, int]]) -> None:
    """The table holds exactly these gists and ages, and each one's own route keys."""
    assert len(table.edits) == len(table.gists) == len(table.ages) == len(content)
    keys = keys_by_edit(table)
    assert keys.keys() == content.keys()
    for row, edit in enumerate(table.edits):
        expected, age = content[edit]
        assert table.gists[row] is expected
        assert table.age_of(row) == age
        assert torch.equal(keys[edit], route_rows(adapter().router, expected).to(table.arena))
        assert torch.equal(table.features_of(row), expected.features.unpack())


def content_of(snapshot: PooledSnapshot) -> dict[EditKey, tuple[Gist, int]]:
    table = snapshot.table
    return dict(zip(table.edits, zip(table.gists, table.ages, strict=True), strict=True))
