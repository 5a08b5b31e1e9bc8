"""Plans: the bytes are those of a real pool, what does not fit is refused, the time is that of a real product."""

import json

import pytest
import torch
from typer.testing import CliRunner

from incomes_plugin.errors import EditTooLong, InvalidValue, PoolFull
from incomes_plugin.gist.spelling import Spelling
from incomes_plugin.gist.types import SPELLED_PER_TOKEN, Gist, Packed
from incomes_plugin.lab.facts.cli import plan_app
from incomes_plugin.lab.facts.plan import EditCost, FreeMemory, Needs, measure_routing, refuse_what_does_not_fit
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.pool.gists import MOVING, GistPool
from incomes_plugin.pool.indexing import INDEX_FROM_EDITS
from incomes_plugin.pool.snapshot import SnapshotDelta, SnapshotRef
from incomes_plugin.selection.token_index import TokenIndex
from tests.tiny_model import write_tiny_model

LENGTHS = (6, 16, 18, 40)
GIB = 2**30


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("plan") / "base")


@pytest.fixture(scope="module")
def adapter(base):
    return EditAdapter.load(base / "adapter")


def gist(adapter, place, tokens):
    shape = adapter.shape
    sizes = ((tokens, shape.feature_dim), (tokens, shape.latent_dim))
    spelling = Spelling.of([(7, 0, -1)] * round(SPELLED_PER_TOKEN * tokens))
    return Gist(f"edit_{place}", 1, *(Packed.of(torch.randn(size)) for size in sizes), spelling=spelling)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_bytes_are_those_of_a_real_pool(adapter, dtype):
    gists = [gist(adapter, place, LENGTHS[place % 4]) for place in range(40)]
    pool = GistPool(adapter, capacity_bytes=GIB, device=torch.device("cpu"), dtype=dtype)
    pool.commit(SnapshotDelta(None, SnapshotRef("eset", 1, "0", len(gists)), tuple(gists)))
    needs = Needs.of(len(gists), EditCost.of(adapter, LENGTHS, dtype))
    usage = pool.usage()
    assert needs.gist_bytes + needs.route_bytes == usage.used_bytes
    assert needs.pool_bytes == needs.gist_bytes + round(MOVING * needs.route_bytes)
    assert needs.device_bytes == usage.device_bytes_used
    assert needs.gist_bytes == sum(found.num_bytes for found in gists)


def test_a_million_edits(adapter):
    cost = EditCost.of(adapter, LENGTHS)
    one, million = Needs.of(1, cost), Needs.of(1_000_000, cost)
    assert million.gist_bytes == pytest.approx(1_000_000 * one.gist_bytes, rel=0.01)
    assert million.route_rows == 1_750_000
    assert million.route_bytes <= million.device_bytes < 2 * million.route_bytes


def test_the_index_of_many_edits_is_counted_as_it_is(adapter):
    """As a real index grows with its tokens."""
    cost = EditCost.of(adapter, LENGTHS)
    assert Needs.of(INDEX_FROM_EDITS - 1, cost).index_bytes == 0
    needs = Needs.of(INDEX_FROM_EDITS, cost)
    keys = torch.nn.functional.normalize(torch.randn(64, 16, adapter.router.key.out_features), dim=-1)
    index = TokenIndex(keys)
    empty = index.num_bytes
    index.add(keys)
    assert needs.index_bytes == pytest.approx(INDEX_FROM_EDITS * cost.tokens * (index.num_bytes - empty) / (64 * 16))


def test_what_fits(adapter):
    cost = EditCost.of(adapter, LENGTHS)
    for room in (FreeMemory(GIB, None), FreeMemory(GIB, 10 * GIB), FreeMemory(GIB, 2**20)):
        most = room.most_edits(cost)
        assert room.holds(Needs.of(most, cost))
        assert not room.holds(Needs.of(most + 1, cost))
        refuse_what_does_not_fit(Needs.of(most, cost), room, cost)
        with pytest.raises(PoolFull, match=f"enough for {most:,} edits") as refused:
            refuse_what_does_not_fit(Needs.of(most + 1, cost), room, cost)
        assert refused.value.param == "edits"
    assert FreeMemory(10, None).most_edits(cost) == 0


def test_routing_is_timed_at_its_size_or_scaled(adapter):
    cost = EditCost.of(adapter, LENGTHS)
    needs = Needs.of(4000, cost)
    whole, part = (measure_routing(needs, cost, spare) for spare in (GIB, 2**20))
    assert (whole.measured_rows, whole.rows) == (needs.route_rows, needs.route_rows)
    assert 0 < part.measured_rows < needs.route_rows == part.rows
    assert whole.ms > 0
    assert part.ms > 0


def run(*args):
    return CliRunner().invoke(plan_app, [str(arg) for arg in args])


def test_the_command(base, tmp_path):
    (tmp_path / "edits").write_text("".join(json.dumps({"text": "the cat " * n}) + "\n" for n in (1, 2, 3)))
    options = (tmp_path / "edits", "--model", base, "--adapter", base / "adapter")
    done = run(*options, "--memory", "1GiB", "--json", tmp_path / "plan.json")
    assert done.exit_code == 0, done.output
    assert "3 edits of 15.0 tokens" in done.output
    assert "room     1.0 GiB for both" in done.output
    assert json.loads((tmp_path / "plan.json").read_text())["needs"]["edits"] == 3
    full = run(*options, "--edits", 10_000_000, "--memory", "1MiB", "--device-memory", "1GiB")
    assert isinstance(full.exception, PoolFull)
    assert "room     1.0 MiB and 1.0 GiB" in full.output
    assert run("--edits", 5, *options[1:]).exit_code == 0


def test_what_is_refused(base, tmp_path):
    options = ("--model", base, "--adapter", base / "adapter")
    assert "--edits N" in str(run(*options).exception)
    (tmp_path / "edits").write_text(json.dumps({"text": "x" * 300}))
    assert isinstance(run(tmp_path / "edits", *options).exception, EditTooLong)
    for wrong in ("no json", '{"txt": "a"}', ""):
        (tmp_path / "edits").write_text(wrong)
        assert isinstance(run(tmp_path / "edits", *options).exception, InvalidValue)
    assert "is no size" in str(run("--edits", 1, *options, "--memory", "much").exception)
