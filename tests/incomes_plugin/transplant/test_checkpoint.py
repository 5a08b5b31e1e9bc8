"""A transplanted checkpoint: loads, says the same on shared tokens, keeps gists, and can be undone byte by byte."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from incomes_plugin.errors import InvalidValue
from incomes_plugin.gist.fingerprint import model_fingerprint
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.hf import EditableModel
from incomes_plugin.transplant.checkpoint import write_checkpoint
from incomes_plugin.transplant.manifest import restore
from incomes_plugin.transplant.methods import METHODS
from incomes_plugin.transplant.prepare import prepare
from incomes_plugin.transplant.recipe import Recipe
from tests.incomes_plugin.transplant.conftest import byte_level, sentence_piece
from tests.incomes_plugin.transplant.models import PIECES, write_base, write_model

TIED = {"tied": True, "untied": False}
CHAT = [{"role": "user", "content": "the cat"}]


def donor_tokenizer(kind):
    if kind == "bytes":
        end = "<|endoftext|>"
        return byte_level(PIECES, ["    "], eos_token=end, bos_token=end, unk_token=end)
    return sentence_piece(PIECES, ["<extra>"], bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@pytest.fixture(scope="module", params=["bytes", "pieces"])
def kind(request):
    return request.param


@pytest.fixture(scope="module", params=TIED)
def donor_tied(request):
    return TIED[request.param]


@pytest.fixture(scope="module", params=TIED)
def base(request, tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base"), tied=TIED[request.param])


@pytest.fixture(scope="module")
def result(base, kind, donor_tied, tmp_path_factory):
    donor = write_model(tmp_path_factory.mktemp("donor"), donor_tokenizer(kind), tied=donor_tied)
    prepared = prepare(base, donor, {})
    out = tmp_path_factory.mktemp("out") / "model"
    write_checkpoint(prepared, Recipe(k=8), out)
    return base, out, prepared


def rows(folder):
    tensors = load_file(folder / "model.safetensors")
    return tensors["model.embed_tokens.weight"], tensors.get("lm_head.weight")


def test_tied_stays_tied_and_both_matrices_are_whole(result):
    base, out, prepared = result
    sources = prepared.rows.sources
    for old, new in zip(rows(base), rows(out), strict=True):
        assert (old is None) == (new is None)
        if old is not None:
            assert torch.equal(new[sources >= 0], old[sources[sources >= 0]])
            assert (new[sources < 0].norm(dim=1) > 0).all()  # the base's own padding row is zero, and stays so
            assert torch.isfinite(new).all()
    body = {k: v for k, v in load_file(base / "model.safetensors").items() if "embed" not in k and "head" not in k}
    found = load_file(out / "model.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in body.items())


def test_transformers_loads_it_and_shared_tokens_say_the_same(result):
    base, out, prepared = result
    old, new = (AutoModelForCausalLM.from_pretrained(folder) for folder in (base, out))
    assert new.config.vocab_size == prepared.rows.num_rows == len(new.get_input_embeddings().weight)
    shared = (prepared.rows.sources >= 0).nonzero()[:, 0]
    prompt = shared[torch.randperm(len(shared), generator=torch.Generator().manual_seed(0))[:40]]
    with torch.inference_mode():
        before = old(input_ids=prepared.rows.sources[prompt][None], output_hidden_states=True)
        after = new(input_ids=prompt[None], output_hidden_states=True)
    assert torch.equal(before.hidden_states[-1], after.hidden_states[-1])
    torch.testing.assert_close(after.logits[..., shared], before.logits[..., prepared.rows.sources[shared]])


def test_tokenizer_configuration_and_template_agree(result):
    base, out, _ = result
    tokenizer, before = AutoTokenizer.from_pretrained(out), AutoTokenizer.from_pretrained(base)
    config, generation = (json.loads((out / name).read_text()) for name in ("config.json", "generation_config.json"))
    assert (config["bos_token_id"], config["eos_token_id"]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert generation["eos_token_id"] == [tokenizer.eos_token_id, tokenizer.bos_token_id]
    assert (generation["pad_token_id"], generation["temperature"]) == (tokenizer.pad_token_id, 0.5)
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}) == 3
    assert tokenizer.apply_chat_template(CHAT, tokenize=False) == before.apply_chat_template(CHAT, tokenize=False)
    assert tokenizer.decode(tokenizer("Zoë 世界\n")["input_ids"]).strip() == "Zoë 世界"
    assert (out / "LICENSE").read_text() == "free\n"
    assert not {"README.md", "pytorch_model.bin"} & {path.name for path in out.iterdir()}


def test_gists_of_shared_tokens_are_the_same_gists(result):
    base, out, prepared = result
    adapter, before = EditAdapter.load(out), EditAdapter.load(base)
    assert len(set(adapter.gist_token_ids)) == before.shape.max_gists
    assert min(adapter.gist_token_ids) >= len(AutoTokenizer.from_pretrained(out))  # no text becomes a gist token
    assert adapter.bos_token_id == AutoTokenizer.from_pretrained(out).bos_token_id
    for ours, theirs in zip(rows(out), rows(base), strict=True):
        if ours is not None:
            assert torch.equal(ours[list(adapter.gist_token_ids)], theirs[list(before.gist_token_ids)])
    shared = [new for new, old in prepared.alignment.copied.items()][:12]
    one = EditableModel.load(out).capture(shared)
    other = EditableModel.load(base).capture([prepared.alignment.copied[new] for new in shared])
    assert torch.equal(one.keys, other.keys)
    assert torch.equal(one.values, other.values)
    assert model_fingerprint(out, torch.float32) != model_fingerprint(base, torch.float32)


def test_restore_gives_every_byte_back(result, tmp_path):
    base, out, _ = result
    restore(out, tmp_path / "back")
    hashes = [
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}
        for folder in (base, tmp_path / "back")
    ]
    hashes[0].pop("pytorch_model.bin")
    assert hashes[0] == hashes[1]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    root = tmp_path_factory.mktemp("pair")
    return write_base(root / "base", tied=False), write_model(root / "donor", donor_tokenizer("bytes"), tied=True)


def test_there_and_back_is_the_identity_on_shared_rows(pair, tmp_path):
    base, donor = pair
    write_checkpoint(prepare(base, donor, {}), Recipe(k=8), tmp_path / "there")
    back = prepare(tmp_path / "there", base, {})
    write_checkpoint(back, Recipe(k=8), tmp_path / "back")
    there = prepare(base, donor, {})
    shared = [(new, there.alignment.copied[middle]) for new, middle in back.alignment.copied.items()]
    assert len(shared) == 256
    assert all(new == old for new, old in shared)  # the base's own ids again
    for ours, theirs in zip(rows(tmp_path / "back"), rows(base), strict=True):
        assert torch.equal(ours[[new for new, _ in shared]], theirs[[old for _, old in shared]])


@pytest.mark.parametrize("method", METHODS)
def test_every_method_writes_a_model(pair, tmp_path, method):
    write_checkpoint(prepare(*pair, {}), Recipe(method, k=4), tmp_path / "model")
    model = EditableModel.load(tmp_path / "model")
    assert torch.isfinite(model.logits([5, 6, 7])).all()


def test_the_same_again_is_the_same(pair, tmp_path):
    for name in ("one", "two"):
        write_checkpoint(prepare(*pair, {}), Recipe("random"), tmp_path / name)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]


def test_what_is_refused(pair, tmp_path):
    base, donor = pair
    with pytest.raises(InvalidValue, match="no folder"):
        prepare(tmp_path / "nothing", donor, {})
    alone = tmp_path / "tokenizer"
    AutoTokenizer.from_pretrained(donor).save_pretrained(alone)
    with pytest.raises(InvalidValue, match="no safetensors"):
        prepare(alone, donor, {})
    with pytest.raises(InvalidValue, match="tokenizer alone"):
        write_checkpoint(prepare(base, alone, {}), Recipe(), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    write_checkpoint(prepare(base, alone, {}), Recipe("subword"), tmp_path / "out")
    with pytest.raises(InvalidValue, match="not empty"):
        write_checkpoint(prepare(base, alone, {}), Recipe("subword"), tmp_path / "out")


def test_restore_refuses_what_was_changed(pair, tmp_path):
    with pytest.raises(InvalidValue, match="not the result of a transplant"):
        restore(pair[0], tmp_path / "back")
    write_checkpoint(prepare(*pair, {}), Recipe("mean"), tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(InvalidValue, match=r"config\.json"):
        restore(tmp_path / "model", tmp_path / "back")
    assert not (tmp_path / "back").exists()
