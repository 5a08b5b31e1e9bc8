"""What a transplant must leave as it is, to the last bit: prompts of shared tokens, and shared rows there and back."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from benchmarks.transplant_edits import written_model
from incomes_plugin.model import DEFAULT_MODEL_DIR
from incomes_plugin.training.data.facts import FactSource
from incomes_plugin.transplant.checkpoint import write_checkpoint
from incomes_plugin.transplant.prepare import Prepared, prepare
from incomes_plugin.transplant.recipe import Recipe

FACTS, MOST_PROMPTS = 400, 50


def shared_prompts(prepared: Prepared, folder: Path) -> dict[str, Any]:
    """Questions that hold shared tokens only: are hidden states, and logits of shared tokens, the base's?"""
    model = written_model(prepared, Recipe("omp"), folder)
    facts = FactSource(2027, held_out=True).distinct(FACTS)
    sources, tokenizer = prepared.rows.sources, prepared.fitted.tokenizer
    prompts = (torch.tensor(tokenizer(fact.question, add_special_tokens=False)["input_ids"]) for fact in facts)
    chosen = [ids for ids in prompts if bool((sources[ids] >= 0).all())][:MOST_PROMPTS]
    old, new = (AutoModelForCausalLM.from_pretrained(path).eval() for path in (DEFAULT_MODEL_DIR, model))
    shared = (sources >= 0).nonzero()[:, 0]
    same, largest = 0, 0.0
    for ids in chosen:
        with torch.inference_mode():
            before, after = old.model(sources[ids][None]).last_hidden_state, new.model(ids[None]).last_hidden_state
            gap = new.lm_head(after)[..., shared].float() - old.lm_head(before)[..., sources[shared]].float()
        same += bool(torch.equal(before, after))
        largest = max(largest, float(gap.abs().max()))
    return {"prompts": len(chosen), "hidden_states_bitwise": same, "largest_logit_gap_of_shared_tokens": largest}


def round_trip(prepared: Prepared, folder: Path) -> dict[str, Any]:
    """The default model to the donor's tokenizer and back to its own: rows of shared tokens."""
    there, back = written_model(prepared, Recipe("omp"), folder), folder / "back"
    home = prepare(there, DEFAULT_MODEL_DIR, {})
    shutil.rmtree(back, ignore_errors=True)
    write_checkpoint(home, Recipe("ridge"), back)
    old, new = prepared.base_matrices.embedding.read(), prepare(back, back, {}).base_matrices.embedding.read()
    pairs = [(new_id, int(prepared.rows.sources[middle])) for new_id, middle in home.alignment.copied.items()]
    pairs = [(new_id, base_id) for new_id, base_id in pairs if base_id >= 0]
    same = sum(bool(torch.equal(new[one], old[other])) for one, other in pairs)
    ids = sum(one == other for one, other in pairs)
    return {"shared_rows": len(pairs), "rows_bitwise": same, "ids_as_before": ids}
