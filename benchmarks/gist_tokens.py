"""`python -m benchmarks.gist_tokens`: trained gist tokens against an edit's own tokens, at equal length of training.

A trained gist is the keys and values of G tokens that stand behind the edit in the capture pass. The base has no such
tokens: their embeddings and low-rank changes of queries, keys and values, active in their rows alone, are learned
together with the maps that read them (InComeS, arXiv 2505.22156). The edit's own tokens are computed by the frozen base
and so are kept. Beside that: the edit's own tokens, read in all reading layers, in the lower half and in the upper half
of them, with nothing packed.

Every variant is judged on edits that training did not see: the right edit among three that the base's features take
for it, and an answer counts when each of its tokens, its end included, is the likeliest one after those before it,
which is what a greedy answer comes to. Nothing is copied (`selection/copying.py`): that needs the edit's own tokens.
Writes gist-tokens.json and gist-tokens.md.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.gist_variants import ROUNDINGS, Frames, GistTokens, OwnTokens, Rounding, int8, learnable
from incomes_plugin.gist.types import GistShape
from incomes_plugin.lab.adapt.features import FrozenBase
from incomes_plugin.lab.adapt.plan import training_plan
from incomes_plugin.lab.adapt.reading import answered
from incomes_plugin.lab.adapt.run import layers_for
from incomes_plugin.lab.adapt.tokens import PlanTokens
from incomes_plugin.lab.adapt.training import Descent, descend
from incomes_plugin.lab.provenance import provenance
from incomes_plugin.model.decoder import Decoder
from incomes_plugin.model.resolve import resolve
from incomes_plugin.model.template import template_of

RESULTS = Path(__file__).parent / "results"
HELD = 8
"""One edit of so many is kept out of training."""

RIVALS = 3


class Work:
    """Edits, answers and rivals, split into those of training and those that are held out."""

    def __init__(self, args: argparse.Namespace) -> None:
        served = resolve("default", None)
        tokenizer = AutoTokenizer.from_pretrained(served.base_dir)
        model = AutoModelForCausalLM.from_pretrained(served.base_dir, dtype=torch.bfloat16)
        self.decoder = Decoder(model.eval().requires_grad_(False))
        features, layers = layers_for(self.decoder.num_layers)
        heads = (self.decoder.num_kv_heads, self.decoder.head_dim)
        self.shape = GistShape(features, layers, *heads, 2 * len(layers) * heads[0] * heads[1])
        self.plan = training_plan(args.data, scale=args.scale, seed=args.seed)
        tokens = PlanTokens(tokenizer, template_of(tokenizer), self.plan)
        base = FrozenBase(self.decoder, template_of(tokenizer), self.shape, tokens.prefix)
        asked = self.plan.asked
        rows = [i for i, a in enumerate(asked) if a.answer is not None and len(a.owners) == 1 and not a.known]
        rows = random.Random(args.seed).sample(rows, min(args.answers, len(rows)))
        say("capture of edits", 0)
        self.edits = learnable(base.edits(tokens.edits))
        self.frames = Frames(base, tokens.edits, layers[-1] + 1)
        say("capture of answers", 0)
        self.found = learnable(base.answers([tokens.asked[i] for i in rows], [tokens.answers[i] for i in rows]))
        self.owners = [asked[i].edits[0] for i in rows]
        self.kinds = [self.plan.edits[owner].kind for owner in self.owners]
        means = F.normalize(torch.stack([self.edits.features[i].float().mean(0) for i in range(len(tokens.edits))]))
        means = F.normalize(means - means.mean(0))
        near = (means @ means.T).fill_diagonal_(-1).topk(RIVALS).indices
        self.rivals = [near[owner].tolist() for owner in self.owners]
        self.tokens = sum(map(len, tokens.edits)) / len(tokens.edits)

    def places(self, held: bool) -> list[int]:
        """Answers about edits that are held out, or about the others."""
        return [i for i, owner in enumerate(self.owners) if (owner % HELD == 0) is held]


def train(work: Work, variant: GistTokens | OwnTokens, steps: int, seed: int, name: str) -> list[float]:
    """Train a variant; returns its losses."""
    places, losses = work.places(held=False), []

    def loss_of(rng: random.Random) -> torch.Tensor:
        chosen = rng.sample(places, 32)
        picks, logits = [], []
        for i in chosen:
            wrong = work.rivals[i][: rng.choice([0, 1, RIVALS])]
            row = [(work.owners[i], rng.uniform(1.0, 8.0)), *((e, rng.uniform(-4.0, 3.0)) for e in wrong)]
            rng.shuffle(row)
            picks.append([e for e, _ in row])
            logits.append([x for _, x in row])
        found = answered(work.decoder, variant.reader, variant.shape, work.found, chosen, variant.picked(picks, logits))
        return F.cross_entropy(work.decoder.unembed(found.hidden).float(), found.labels)

    def tick(step: int, steps: int, loss: float) -> None:
        losses.append(loss)
        if step % 50 == 0:
            say(f"{name}, loss {sum(losses[-50:]) / 50:.3f}, step", step)

    descend(variant, loss_of, Descent(steps, 4.5e-3, warm=20, betas=(0.9, 0.98)), seed=seed, tick=tick)
    return losses


@torch.inference_mode()
def success(work: Work, variant: GistTokens | OwnTokens, rounding: Rounding) -> dict[str, Any]:
    """Share of held-out answers that are right to their last token, in all and by kind of edit."""
    right: dict[str, list[bool]] = {}
    places = work.places(held=True)
    for start in range(0, len(places), 32):
        chosen = places[start : start + 32]
        picks = [[work.owners[i], *work.rivals[i]] for i in chosen]
        logits = [[4.0] + [-1.0] * RIVALS for _ in chosen]
        found = answered(
            work.decoder, variant.reader, variant.shape, work.found, chosen, variant.picked(picks, logits, rounding)
        )
        same = work.decoder.unembed(found.hidden).argmax(-1) == found.labels
        for row, i in enumerate(chosen):
            whole = bool(same[found.prompt == row].all())
            for kind in ("all", work.kinds[i]):
                right.setdefault(kind, []).append(whole)
    return {kind: {"right": round(sum(flags) / len(flags), 4), "of": len(flags)} for kind, flags in right.items()}


def main(argv: list[str]) -> int:
    """Train and judge every variant, and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gist_tokens", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of published edits")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--scale", type=float, default=0.25)
    parser.add_argument("--answers", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    work = Work(args)
    layers, half = work.shape.layers, len(work.shape.layers) // 2
    variants: dict[str, Callable[[], GistTokens | OwnTokens]] = {}
    for name, part in (
        ("all reading layers", layers), ("the lower half", layers[:half]), ("the upper half", layers[half:]),
        ("every other one", layers[::2]),
    ):  # fmt: skip
        shape = replace(work.shape, layers=part)
        variants[f"own tokens, {name}"] = partial(OwnTokens, work.decoder, shape, work.edits, work.shape)
    for count in args.counts:
        variants[f"trained, G = {count}"] = partial(GistTokens, work.decoder, work.shape, work.frames, count)
    result: dict[str, Any] = provenance(f"python -m benchmarks.gist_tokens {' '.join(argv)}".strip())
    result |= {"steps": args.steps, "tokens_per_edit": round(work.tokens, 2), "rows": []}
    for name, make in variants.items():
        start, variant = time.monotonic(), make()
        losses = train(work, variant, args.steps, args.seed, name)
        took = round(time.monotonic() - start)
        for kind, rounding in ROUNDINGS.items() if name.startswith("own") else [("int8", int8)]:
            row = {
                "variant": f"{name}, {kind}", "bytes_per_edit": round(variant.num_bytes(work.tokens)), "seconds": took,
                "loss": round(sum(losses[-50:]) / len(losses[-50:]), 4), "success": success(work, variant, rounding),
            }  # fmt: skip
            result["rows"].append(row)
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "gist-tokens.json").write_text(json.dumps(result, indent=2) + "\n")
        (args.out / "gist-tokens.md").write_text(markdown(result))
    sys.stdout.write(markdown(result))
    return 0


def say(what: str, step: int) -> None:
    """A line on standard error."""
    sys.stderr.write(f"{what} {step}\n")


def markdown(result: dict[str, Any]) -> str:
    """The rows as a table."""
    kinds = list(result["rows"][0]["success"])
    machine = result["machine"]
    lines = [
        "# Trained gist tokens against an edit's own tokens", "",
        f"`{result['command']}` on {result['date']}, commit {result['commit']}; {machine['cpu']}, {machine['cores']} "
        f"cores. {result['steps']} steps of 32 answers each; whole answers that are right, percent.", "",
        "| variant | bytes an edit | loss of training | " + " | ".join(kinds) + " |",
        "|---|---|---|" + "---|" * len(kinds),
    ]  # fmt: skip
    for row in result["rows"]:
        cells = [f"{100 * row['success'][kind]['right']:.1f} of {row['success'][kind]['of']}" for kind in kinds]
        lines.append(f"| {row['variant']} | {row['bytes_per_edit']:,} | {row['loss']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
