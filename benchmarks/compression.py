"""`python -m benchmarks.compression`: right answers against bytes an edit, on one adapter.

The codec's directions are ordered by how much they keep, so fewer latents are the first ones of the adapter's own codec
and nothing is trained again. `all` keeps every number of keys and values, in 8 bits too: what the codec is judged by.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from incomes_plugin.gist.types import GistShape
from incomes_plugin.lab.provenance import provenance
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.resolve import resolve
from incomes_plugin.selection.codec import Codec
from incomes_plugin.selection.copying import Copier

RESULTS = Path(__file__).parent / "results"
METRICS = ("reliability", "generalization", "near_miss_unchanged")


def main(argv: list[str]) -> int:
    """Evaluate every variant and write compression.json and compression.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compression", description=__doc__)
    parser.add_argument("--latents", type=int, nargs="+", default=[48, 96, 192, 288])
    parser.add_argument("--data", default="invented,zsre,counterfact")
    parser.add_argument("--edits", type=int, default=1000)
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--model", default="default", help="base: default, a folder, a hub id")
    parser.add_argument("--adapter", help="its edit adapter; the packaged one by default")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    served = resolve(args.model, args.adapter)
    adapter = EditAdapter.load(served.adapter_dir)
    result: dict[str, Any] = {**provenance(f"python -m benchmarks.compression {' '.join(argv)}".strip())}
    result |= {"base": served.base_dir.name, "edits": args.edits, "rows": []}
    with tempfile.TemporaryDirectory(prefix="incomes-compression-") as folder:
        for latents in (*args.latents, adapter.shape.latent_dim, None):
            changed = with_latents(adapter, latents)
            changed.save(Path(folder) / "adapter")
            cells = evaluate(Path(folder), args)
            result["rows"].append(row(changed, latents, cells))
            write(result, args.out)
    sys.stdout.write(markdown(result))
    return 0


def with_latents(adapter: EditAdapter, latents: int | None) -> EditAdapter:
    """The adapter with the first `latents` directions of its codec; None: with as many numbers as there are."""
    shape = replace(adapter.shape, latent_dim=latents or adapter.shape.read_dim)
    codec = Codec(shape)
    for name in ("mean", "scale"):
        getattr(codec, name).copy_(getattr(adapter.codec, name))
    codec.directions.copy_(torch.eye(shape.read_dim) if latents is None else adapter.codec.directions[:, :latents])
    return replace(adapter, shape=shape, codec=codec, copier=copier_of(adapter, shape, latents))


def copier_of(adapter: EditAdapter, shape: GistShape, latents: int | None) -> Copier:
    """The adapter's copier for these latents: of directions that are left out it learns nothing, all else is equal."""
    old, new = (
        adapter.copier,
        Copier(adapter.copier.config["hidden_dim"], shape.latent_dim, adapter.copier.config["copy_dim"]),
    )
    state = dict(old.state_dict())
    width = math.sqrt(shape.latent_dim / len(old.spread))
    for name in ("key", "before"):
        white = state[name] / old.spread  # of latents as they are
        state[name] = width * (white @ adapter.codec.directions.T if latents is None else white[:, :latents])
    state["spread"] = torch.ones(shape.latent_dim)
    new.load_state_dict(state)
    return new.requires_grad_(False)


def evaluate(folder: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """The cells of one `incomes eval`, in a process of its own."""
    out = folder / "found.json"
    subprocess.run(
        [
            Path(sys.executable).with_name("incomes"), "eval", "--model", args.model, "--adapter", folder / "adapter",
            "--data", args.data, "--edits", str(args.edits), "--limit", str(args.limit), "--left-out", str(args.limit),
            "--seed", str(args.seed), "--ask", "rewrite,rephrase,near_miss", "--methods", "ours",
            "--max-answer-tokens", "32", "--out", out,
        ],
        check=True,
    )  # fmt: skip
    cells: list[dict[str, Any]] = json.loads(out.read_text())["cells"]
    return cells


def row(adapter: EditAdapter, latents: int | None, cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Figures of one variant."""
    facts = [cell["facts"] for cell in cells]
    return {
        "latents": latents or "all",
        "bytes_per_token": adapter.shape.bytes_per_token,
        "bytes_per_edit": {fact["data"]: fact["bytes_per_edit"] for fact in facts},
        **{
            metric: {fact["data"]: cell["metrics"][metric] for fact, cell in zip(facts, cells, strict=True)}
            for metric in METRICS
        },
    }


def write(result: dict[str, Any], folder: Path) -> None:
    """Both files, anew after every variant."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "compression.json").write_text(json.dumps(result, indent=2) + "\n")
    (folder / "compression.md").write_text(markdown(result))


def markdown(result: dict[str, Any]) -> str:
    """The rows as a table."""
    names = list(result["rows"][0]["bytes_per_edit"])
    lines = [
        "# Success against bytes an edit",
        "",
        f"`{result['command']}` on {result['date']}, commit {result['commit']}; {result['machine']['cpu']}, "
        f"{result['machine']['cores']} cores. {result['base']}, {result['edits']:,} edits, percent.",
        "",
        "| latents | bytes a token | " + " | ".join(f"{name}: KB an edit, rewrite / rephrase" for name in names) + " |",
        "|---|---|" + "---|" * len(names),
    ]
    for found in result["rows"]:
        cells = [
            f"{found['bytes_per_edit'][name] / 1000:.1f}; "
            + " / ".join(f"{100 * found[metric][name]['value']:.1f}" for metric in METRICS[:2])
            for name in names
        ]
        lines.append(f"| {found['latents']} | {found['bytes_per_token']:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
