"""OMP: both fast paths against scikit-learn, the float64 reference and planted solutions."""

import warnings

import pytest
import torch
from sklearn.linear_model import OrthogonalMatchingPursuit, orthogonal_mp

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.transplant.omp import Path, Search, solve
from incomes_plugin.lab.transplant.omp.reference import solve_reference

PATHS = list(Path)


def problem(seed, *, atoms=300, width=48, targets=24, structured=True):
    """Atoms with clusters and a shared mean, as embeddings have; or plain noise."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape):
        return torch.randn(*shape, generator=generator)

    if not structured:
        return noise(atoms, width), noise(targets, width)
    centres, spectrum = noise(12, width), torch.linspace(2, 0.2, width)
    rows = (
        centres[torch.randint(12, (atoms + targets,), generator=generator)] + noise(atoms + targets, width)
    ) * spectrum
    rows = (rows + 0.5 * noise(width)) * (0.5 + torch.rand(len(rows), 1, generator=generator))
    return rows[:atoms], rows[atoms:]


def sets(codes):
    return [set(row[row >= 0].tolist()) for row in codes.support]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("seed", "k", "structured"), [(0, 8, True), (1, 24, True), (2, 24, False), (3, 40, True)])
def test_supports_equal_scikit_learn(path, seed, k, structured):
    atoms, targets = problem(seed, structured=structured)
    codes = solve(atoms, targets, k, path=path)
    found = torch.from_numpy(orthogonal_mp(atoms.double().numpy().T, targets.double().numpy().T, n_nonzero_coefs=k)).T
    assert sets(codes) == [set(row.nonzero()[:, 0].tolist()) for row in found]
    dense = torch.zeros(len(targets), len(atoms)).scatter_(1, codes.support, codes.coefficients)
    torch.testing.assert_close(dense, found.float(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("path", PATHS)
def test_one_target_equals_the_estimator(path):
    atoms, targets = problem(4)
    fitted = OrthogonalMatchingPursuit(n_nonzero_coefs=10, fit_intercept=False).fit(atoms.numpy().T, targets[0].numpy())
    assert sets(solve(atoms, targets[:1], 10, path=path)) == [set(fitted.coef_.nonzero()[0].tolist())]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("k", [1, 6, 32])
def test_equals_the_reference_in_order_and_coefficients(path, k):
    atoms, targets = problem(5)
    codes, expected = solve(atoms, targets, k, path=path), solve_reference(atoms, targets, k)
    assert torch.equal(codes.support, expected.support)
    torch.testing.assert_close(codes.coefficients, expected.coefficients, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("path", PATHS)
def test_planted_solutions_are_found_and_need_no_more_atoms(path):
    atoms, _ = problem(6, width=128, structured=False)
    generator = torch.Generator().manual_seed(7)
    planted = torch.stack([torch.randperm(300, generator=generator)[:5] for _ in range(64)])
    weights = 1 + torch.rand(64, 5, generator=generator)
    targets = torch.einsum("mk,mke->me", weights, atoms[planted])
    codes = solve(atoms, targets, 12, path=path)
    assert sets(codes) == [set(row.tolist()) for row in planted]
    assert int((codes.coefficients[codes.support < 0] != 0).sum()) == 0
    other = torch.randn(300, 7, generator=generator)
    expected = torch.einsum("mk,mke->me", weights, other[planted])
    torch.testing.assert_close(codes.combine(other, batch=10), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("path", PATHS)
def test_degenerate_input(path):
    atoms, targets = problem(8)
    atoms[1], atoms[2] = atoms[0], 0.0  # a duplicate and a zero atom
    targets[0], targets[1] = 0.0, 3 * atoms[0]
    codes = solve(atoms, targets, 16, path=path)
    assert sets(codes)[0] == set()
    assert codes.support[1].tolist() == [0] + [-1] * 15
    assert codes.coefficients[1, 0] == pytest.approx(3)
    assert all(2 not in chosen and not {0, 1} <= chosen for chosen in sets(codes))
    assert torch.isfinite(codes.coefficients).all()
    assert solve(atoms, targets[:0], 16, path=path).support.shape == (0, 16)


@pytest.mark.parametrize("path", PATHS)
def test_batches_change_nothing_and_progress_is_told(path, monkeypatch):
    monkeypatch.setattr("incomes_plugin.lab.transplant.omp.gram.BATCH", 10)
    monkeypatch.setattr("incomes_plugin.lab.transplant.omp.residual.BATCH_BYTES", 4 * (8 * 48 + 2 * 300) * 10)
    atoms, targets = problem(9)
    told = []
    codes = solve(atoms, targets, 8, path=path, report=lambda done, total: told.append((done, total)))
    assert told == [(10, 24), (20, 24), (24, 24)]
    assert torch.equal(codes.support, solve_reference(atoms, targets, 8).support)


@pytest.mark.parametrize("k", [1, 5, 16, 24])
def test_one_search_serves_every_k(k):
    atoms, targets = problem(12)
    targets[0], targets[1] = 0.0, 2 * atoms[7]  # codes shorter than k
    search = Search(longest=24)
    search(atoms, targets, 8)
    codes, own = search(atoms, targets, k), solve(atoms, targets, k)
    assert torch.equal(codes.support, own.support)
    torch.testing.assert_close(codes.coefficients, own.coefficients, rtol=1e-3, atol=1e-4)


def test_a_search_is_made_once(monkeypatch):
    calls = []
    monkeypatch.setattr(
        "incomes_plugin.lab.transplant.omp.search.solve", lambda *a, **k: calls.append(a) or solve(*a, **k)
    )
    atoms, targets = problem(13)
    search = Search(longest=100)  # more than there are dimensions
    assert search(atoms, targets, 48).support.shape == (24, 48)
    assert search(atoms, targets, 3).support.shape == (24, 3)
    assert len(calls) == 1


@pytest.mark.parametrize("k", [0, 49])
def test_impossible_k(k):
    atoms, targets = problem(10)
    with pytest.raises(InvalidValue, match="k = "):
        solve(atoms, targets, k)


def test_scikit_learn_is_the_real_one():
    """The comparison would be empty if scikit-learn stopped before k atoms."""
    atoms, targets = problem(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = orthogonal_mp(atoms.double().numpy().T, targets.double().numpy().T, n_nonzero_coefs=40)
    assert ((found != 0).sum(axis=0) == 40).all()


@pytest.mark.gpu
def test_a_gpu_chooses_the_same():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    atoms, targets = problem(11)
    codes = solve(atoms.cuda(), targets.cuda(), 16)
    assert torch.equal(codes.support, solve_reference(atoms, targets, 16).support)
