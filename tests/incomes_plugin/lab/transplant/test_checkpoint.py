"""A transplanted checkpoint: loads, says the same on shared tokens, and its adapter came along."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from incomes_plugin.errors import InvalidValue
from incomes_plugin.gist.fingerprint import base_fingerprint, model_fingerprint
from incomes_plugin.lab.transplant.checkpoint import write_checkpoint
from incomes_plugin.lab.transplant.methods import METHODS, Recipe
from incomes_plugin.lab.transplant.prepare import prepare
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.hf import EditableModel
from tests.incomes_plugin.lab.transplant.conftest import byte_level, sentence_piece
from tests.incomes_plugin.lab.transplant.models import PIECES, write_base, write_model

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
    prepared = prepare(base, donor, {}, adapter=EditAdapter.load(base / "adapter"))
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


def test_the_adapter_belongs_to_the_new_base_and_frames_its_prompts(result):
    base, out, _ = result
    adapter, before = EditAdapter.for_base(out / "adapter", out), EditAdapter.load(base / "adapter")
    assert adapter.base.name == str(out)
    assert adapter.base.fingerprint == base_fingerprint(out) != before.base.fingerprint
    tokenizer = AutoTokenizer.from_pretrained(out)
    prompt = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    start, end = adapter.template.question_span(ids, 64)
    assert tokenizer.decode(ids[start:end]).strip() == "the cat"
    assert tuple(ids[end:]) == adapter.template.answer_prefix
    old, new = (load_file(folder / "adapter" / "edit_adapter.safetensors") for folder in (base, out))
    assert all(torch.equal(new[name], tensor) for name, tensor in old.items())
    assert (adapter.shape, adapter.rules) == (before.shape, before.rules)


def test_edits_of_shared_tokens_have_the_same_gists_and_answers(result):
    base, out, prepared = result
    old, new = (EditableModel.load(folder, folder / "adapter") for folder in (base, out))
    copied = list(prepared.alignment.copied.items())
    text = [new_id for new_id, _ in copied[5:17]]
    one, other = new.capture(text), old.capture([prepared.alignment.copied[i] for i in text])
    same_frame = [int(prepared.rows.sources[i]) for i in new.adapter.template.edit_prefix] == [
        *old.adapter.template.edit_prefix
    ]
    if same_frame:  # "system" is one token of some donors, whose row is estimated
        assert torch.equal(one.latents.data, other.latents.data)
    pool = new.pool([one])
    assert len(new.generate(text, pool, max_tokens=3, stop_ids=[])) == 3
    assert new.picks.edits == (0,)


def test_a_new_model_asks_for_gists_of_its_own(result):
    base, out, _ = result
    before, after = (model_fingerprint(folder, folder / "adapter", torch.float32) for folder in (base, out))
    assert before != after


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
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert torch.isfinite(model(torch.tensor([[5, 6, 7]])).logits).all()


def test_the_same_again_is_the_same(pair, tmp_path):
    for name in ("one", "two"):
        write_checkpoint(prepare(*pair, {}), Recipe("omp", 4), tmp_path / name)
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
