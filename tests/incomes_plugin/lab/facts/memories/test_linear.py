"""Linear memories against the float64 definitions, inserts and deletes against a batch solve."""

import pytest
import torch

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.facts.memories import (
    LinearMemory,
    RecursiveMemory,
    Whitening,
    decide,
    reference,
    rules,
    threshold_at,
    unit_codes,
)


def on_sphere(count, width, seed=0):
    return torch.nn.functional.normalize(
        torch.randn(count, width, generator=torch.Generator().manual_seed(seed)), dim=-1
    )


def names(count, prefix="edit"):
    return [f"{prefix}-{place}" for place in range(count)]


def anisotropic(count, width, seed):
    """Keys as hidden states are: a common mean and a spectrum that falls like 1 / i."""
    spread = 1 / torch.arange(1, width + 1)
    return 3 * on_sphere(1, width, 99) + on_sphere(count, width, seed) * spread * width**0.5


def right(memory, keys, codes):
    return float((decide(memory(keys), codes).best == torch.arange(len(keys))).float().mean())


def relative(found, wanted):
    return float((found.double() - wanted).norm() / wanted.norm())


def test_rules_equal_their_definitions():
    keys, values = on_sphere(90, 32), on_sphere(90, 24, 1)
    assert relative(rules.hebbian(keys, values), reference.hebbian(keys, values)) < 1e-6
    for penalty in (1e-2, 1.0):
        assert relative(rules.ridge(keys, values, penalty), reference.ridge(keys, values, penalty)) < 1e-5
    samples = anisotropic(500, 16, 2)
    found = Whitening.fit(samples, 1e-3)(samples[:50])
    assert relative(found, reference.whitened(samples, samples[:50], 1e-3)) < 1e-4


def test_trained_holds_what_a_sum_of_outer_products_does_not():
    keys, codes = on_sphere(150, 32), unit_codes(names(150), 32)
    assert right(LinearMemory(rules.hebbian(keys, codes)), keys, codes) < 0.9
    assert right(LinearMemory(rules.trained(keys, codes, torch.arange(150))), keys, codes) == 1.0


def test_whitening_makes_keys_of_a_model_usable():
    keys, codes = anisotropic(100, 64, 3), unit_codes(names(100), 64)
    plain = LinearMemory(rules.hebbian(keys, codes))
    whitening = Whitening.fit(anisotropic(2000, 64, 4))
    better = LinearMemory(rules.hebbian(whitening(keys), codes), whitening)
    assert right(plain, keys, codes) < 0.05
    assert right(better, keys, codes) > 0.9


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-9), (torch.float32, 1e-3)])
@pytest.mark.parametrize("block", [1, 50])
def test_inserts_and_deletes_equal_a_batch_solve(dtype, limit, block):
    count, width = 600, 64
    keys, values, ids = on_sphere(count, width), unit_codes(names(count), 32), names(count)
    memory = RecursiveMemory(width, 32, dtype=dtype)
    for first in range(0, count, block):
        memory.insert(*(part[first : first + block] for part in (ids, keys, values)))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(5)).tolist()
    gone, kept = order[:400], sorted(order[400:])
    for first in range(0, len(gone), block):
        memory.delete([ids[place] for place in gone[first : first + block]])
    assert relative(memory.matrix, reference.ridge(keys[kept], values[kept], memory.penalty)) < limit
    assert memory.drift() < limit
    assert memory.ids == [ids[place] for place in kept]
    memory.rebuild()
    assert memory.drift() == 0.0


def test_deleted_facts_abstain():
    keys, codes = on_sphere(240, 128), unit_codes(names(240), 128)
    memory = RecursiveMemory(128, 128)
    memory.insert(names(240), keys, codes)
    memory.delete(names(120))
    unrelated = decide(memory(on_sphere(2000, 128, 8)), codes[120:]).scores
    threshold = threshold_at(unrelated, 0.01)
    found = decide(memory(keys), codes[120:], threshold=threshold).best
    assert float((found[:120] == -1).float().mean()) > 0.95
    assert torch.equal(found[120:], torch.arange(120))


def test_a_delete_that_loses_digits_rebuilds():
    """One key forty times under a tiny penalty: taking all out leaves a pivot of 2.5e-9."""
    keys = on_sphere(1, 8).repeat(40, 1)
    memory = RecursiveMemory(8, 8, penalty=1e-7)
    memory.insert(names(40), keys, unit_codes(names(40), 8))
    memory.delete(names(40))
    assert memory.rebuilds > 0
    assert len(memory) == 0
    assert not memory.matrix.any()


def test_what_does_not_fit_is_refused_and_changes_nothing():
    memory = RecursiveMemory(8, 8)
    keys, values = on_sphere(2, 8), unit_codes(["a", "b"], 8)
    memory.insert(["a", "b"], keys, values)
    before = memory.matrix.clone()
    for ids, wrong in ((["a"], keys[:1]), (["c", "c"], keys), (["c"], keys), (["c", "d"], keys * torch.nan)):
        with pytest.raises(InvalidValue):
            memory.insert(ids, wrong, values[: len(wrong)])
    for ids in (["c"], ["a", "a"], ["a", "c"]):
        with pytest.raises(InvalidValue, match="not in the memory"):
            memory.delete(ids)
    for penalty, dtype in ((0.0, torch.float64), (1e-4, torch.float32)):
        with pytest.raises(InvalidValue, match="penalty"):
            RecursiveMemory(8, 8, penalty=penalty, dtype=dtype)
    assert torch.equal(memory.matrix, before)
    assert "a" in memory
    assert len(memory) == 2


def test_codes_are_of_the_id_alone():
    codes = unit_codes(["a", "b", "a"], 64)
    assert torch.equal(codes[0], codes[2])
    assert torch.equal(unit_codes(["b"], 64)[0], codes[1])
    torch.testing.assert_close(codes.norm(dim=-1), torch.ones(3))
    assert (codes[0] != codes[1]).float().mean() > 0.3
    assert (codes[0, :8] > 0).tolist() == [True, False, False, False, False, True, True, False]  # on every machine
    with pytest.raises(InvalidValue, match="multiple of 8"):
        unit_codes(["a"], 12)


def test_readout():
    codes = torch.eye(3)
    values = torch.tensor([[0.9, 0.2, 0.0], [0.5, 0.45, 0.0], [0.1, 0.0, 0.0]])
    assert decide(values, codes).best.tolist() == [0, 0, 0]
    found = decide(values, codes, threshold=0.3, margin=0.1)
    assert found.best.tolist() == [0, -1, -1]
    torch.testing.assert_close(found.margins, torch.tensor([0.7, 0.05, 0.1]))
    assert decide(values[:, :1], codes[:1, :1]).margins.tolist() == [torch.inf] * 3


def test_threshold_lets_through_the_share():
    scores = torch.arange(1000.0)
    threshold = threshold_at(scores, 0.01)
    assert int((scores >= threshold).sum()) == 10
    assert int((torch.ones(1000) >= threshold_at(torch.ones(1000), 0.01)).sum()) == 0  # never more, ties or not
    with pytest.raises(InvalidValue, match="cannot show"):
        threshold_at(scores[:50], 0.01)
