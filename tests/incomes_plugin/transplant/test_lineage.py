"""What a transplanted checkpoint knows of its base: the base's fingerprint, and which tokens have whose rows."""

import pytest
import torch

from incomes_plugin.gist import model_fingerprint
from incomes_plugin.transplant.checkpoint import write_checkpoint
from incomes_plugin.transplant.lineage import Lineage
from incomes_plugin.transplant.prepare import prepare
from incomes_plugin.transplant.recipe import Recipe
from tests.incomes_plugin.transplant.conftest import byte_level
from tests.incomes_plugin.transplant.models import PIECES, write_base, write_model

DTYPE = torch.bfloat16


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("lineage")
    donor = write_model(root / "donor", byte_level(PIECES, eos_token="<|end|>"), tied=True)
    base = write_base(root / "base", tied=True)
    (base / "other.safetensors").unlink(missing_ok=True)
    prepared = prepare(base, donor, {})
    write_checkpoint(prepared, Recipe("subword"), root / "out")
    return base, root / "out", prepared


def test_the_bases_fingerprint_and_rows(folders):
    base, out, prepared = folders
    found = Lineage.read(out, model_fingerprint(out, DTYPE), DTYPE)
    assert found.base == model_fingerprint(base, DTYPE)
    old, new = (
        t("the one", add_special_tokens=False)["input_ids"]
        for t in (prepared.base.tokenizer, prepared.fitted.tokenizer)
    )
    assert found.same_tokens(new, old)
    assert not found.same_tokens(new[:-1], old)
    assert not found.same_tokens([prepared.rows.estimated[0]], [-2])
    assert not found.same_tokens(list(prepared.rows.estimated[:1]), old[:1])


def test_no_transplant_or_a_changed_one_has_none(folders):
    base, out, _ = folders
    assert Lineage.read(base, model_fingerprint(base, DTYPE), DTYPE) is None
    config = (out / "config.json").read_text()
    (out / "config.json").write_text(config + "\n")
    assert Lineage.read(out, model_fingerprint(out, DTYPE), DTYPE) is None
    (out / "config.json").write_text(config)
    assert Lineage.read(out, model_fingerprint(out, torch.float32), DTYPE) is None
