"""`python -m benchmarks.verbatim_full_size`: the commands of docs/verbatim.md on a model of 1B shape; their memory.

The model has the shape of Llama-3.2-1B, random weights and the default base's tokenizer, so what it holds says nothing;
that both commands run on it, in how much memory, and how long a step takes, does. With real weights in a folder the
same commands repeat the published figure. Writes verbatim-full-size.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from incomes_plugin.lab.provenance import provenance
from incomes_plugin.lab.verbatim.clauses import verbatim_texts
from incomes_plugin.model.base import resolve_model

RESULTS = Path(__file__).parent / "results"
MIB = 2**20
POLL_S = 0.05


def main(argv: list[str]) -> int:
    """Make the model, run both commands, write what they took."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verbatim_full_size", description=__doc__)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--vocabulary", type=int, default=128_256)
    parser.add_argument("--steps", type=int, default=20, help="of each text")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    result: dict[str, Any] = provenance(f"python -m benchmarks.verbatim_full_size {' '.join(argv)}".strip())
    with tempfile.TemporaryDirectory(prefix="verbatim-full-size-") as name:
        folder = Path(name)
        result["model"] = write_model(folder / "model", args.width, args.layers, args.vocabulary)
        texts = folder / "texts.jsonl"
        texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in verbatim_texts()[:2]))
        model, capacity = folder / "model", folder / "capacity"
        result["start"] = {**ran("verbatim", "report", "--help"), "said": []}
        result["capacity"] = ran("capacity", model, "--quick", "--out", capacity)
        result["report"] = ran(
            "verbatim", "report", texts, "--model", model, "--capacity", capacity / "verbatim-capacity.json",
            "--out", folder / "run", "--engine", "model", "--max-steps", args.steps,
        )  # fmt: skip
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "verbatim-full-size.json").write_text(json.dumps(result, indent=1) + "\n")
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    return 0


def write_model(folder: Path, width: int, layers: int, vocabulary: int) -> dict[str, Any]:
    """A checkpoint in bf16; its size."""
    tokenizer = AutoTokenizer.from_pretrained(resolve_model("default"))
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        num_attention_heads=width // 64, num_key_value_heads=width // 256, head_dim=64, tie_word_embeddings=True,
        max_position_embeddings=8192, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"parameters": parameters, "weights_mib": round(2 * parameters / MIB), "dtype": "bfloat16"}


def ran(*arguments: object) -> dict[str, Any]:
    """Run `incomes` with these arguments: seconds, the most memory, and the last lines that it said."""
    command = [sys.executable, "-m", "incomes_server.cli", *map(str, arguments)]
    start_s = time.monotonic()
    with tempfile.TemporaryFile("w+") as said:
        child = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, text=True)
        peak, process = 0, psutil.Process(child.pid)
        while child.poll() is None:
            try:
                peak = max(peak, process.memory_info().rss)
            except psutil.NoSuchProcess:
                break
            time.sleep(POLL_S)
        status = child.wait()
        said.seek(0)
        lines = said.read().strip().splitlines()
    if status:
        raise RuntimeError("\n".join([f"incomes {' '.join(map(str, arguments))} ended with {status}", *lines[-20:]]))
    seconds = round(time.monotonic() - start_s, 1)
    return {
        "peak_mib": round(peak / MIB),
        "seconds": seconds,
        "said": [line for line in lines[-12:] if "/" not in line],
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
