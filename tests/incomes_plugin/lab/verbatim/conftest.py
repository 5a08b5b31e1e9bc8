"""The tiny model, with texts crammed into it once for all tests."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from incomes_plugin.lab.verbatim.decode import greedy
from incomes_plugin.lab.verbatim.frozen import FrozenModel
from incomes_plugin.lab.verbatim.optimise import Crammer, CramOutcome
from incomes_plugin.lab.verbatim.row import CramJob, CramSettings
from incomes_plugin.lab.verbatim.start import random_vectors
from incomes_plugin.lab.verbatim.targets import CramTarget, tokens_of
from tests.tiny_model import write_tiny_model

TEXTS = ("abc 12", "pump", "Zöe", "x=3;y")
K = 8
QUICK = CramSettings(max_steps=300, patience=300)


@dataclass(frozen=True)
class Decoded:
    """Accepts what the model itself decodes, as the product does."""

    model: FrozenModel

    def __call__(self, target: CramTarget, vectors: torch.Tensor) -> bool:
        return greedy(self.model, vectors, len(target.ids) + 1) == [*target.ids, self.model.end_id]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("verbatim") / "tiny")


@pytest.fixture(scope="session")
def model(folder: Path) -> FrozenModel:
    torch.set_num_threads(1)
    return FrozenModel(folder)


def job(model: FrozenModel, text: str, count: int = K, most: int = K) -> CramJob:
    target = CramTarget(text, tokens_of(model.tokenizer, text))
    return CramJob(target, random_vectors(model, text, count), most)


def cram(
    model: FrozenModel,
    jobs: Sequence[CramJob],
    settings: CramSettings = QUICK,
    accept: Callable[[CramTarget, torch.Tensor], bool] | None = None,
) -> dict[str, CramOutcome]:
    found = Crammer(model, jobs, settings, accept or Decoded(model)).run()
    return {outcome.target.name: outcome for outcome in found if outcome}


@pytest.fixture(scope="session")
def crammed(model: FrozenModel) -> dict[str, CramOutcome]:
    return cram(model, [job(model, text) for text in TEXTS])
