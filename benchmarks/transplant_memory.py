"""`python -m benchmarks.transplant_memory`: the most memory of its own that `incomes transplant` takes, by method.

A random base with Llama 2's tokenizer and a random donor with GPT-2's; every method runs as a program of its own. The
checkpoint is several times as large as a matrix: if it passed through memory, the peak would show it. What the program
takes before it reads a row is measured with `--help`. Writes transplant-memory.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from benchmarks.donors import unpack_tokenizers
from incomes_plugin.lab.provenance import provenance

RESULTS = Path(__file__).parent / "results"
MIB = 2**20
POLL_S = 0.02


def main(argv: list[str]) -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transplant_memory", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the shared data folder")
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--methods", nargs="+", default=["subword", "ridge", "omp"])
    parser.add_argument("--k", type=int, default=4, help="atoms of a row: changes the time, hardly the memory")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    where = provenance(f"python -m benchmarks.transplant_memory {' '.join(argv)}".strip())
    with tempfile.TemporaryDirectory(prefix="transplant-memory-") as folder:
        found = measure(Path(folder), args)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "transplant-memory.json").write_text(json.dumps(where | found, indent=1) + "\n")
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return 0


def measure(root: Path, args: argparse.Namespace) -> dict[str, Any]:
    """MiB: of the files, of one matrix on each side, and the peak of every method."""
    tokenizers = unpack_tokenizers(args.data / "tokenizers" / "tokenizers.tar.xz", root / "tokenizers")
    base = _write(root / "base", tokenizers["llama2"], args.width, args.layers)
    donor = _write(root / "donor", tokenizers["gpt2"], args.width, 1)
    peaks = {"start": _peak_mib("--help")}
    common = (base, donor, "--allow-number-mismatch", "--k", args.k)
    for method in args.methods:
        peaks[method] = _peak_mib(*common, "--out", root / method, "--method", method)
    sizes = {"base_checkpoint": sum(path.stat().st_size for path in base.glob("*.safetensors")) / MIB}
    for name, folder in (("base_matrix", base), ("donor_matrix", donor)):
        sizes[name] = LlamaConfig.from_pretrained(folder).vocab_size * args.width * 2 / MIB
    return {"width": args.width, "layers": args.layers, "dtype": "bfloat16", "mib": sizes, "peak_mib": peaks}


def _write(folder: Path, tokenizer_dir: Path, width: int, layers: int) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers,
        num_attention_heads=8, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(layers)
    LlamaForCausalLM(config).bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _peak_mib(*options: object) -> float:
    """Of `incomes transplant` with these options: the most memory of its own, read while it runs."""
    child = subprocess.Popen(
        [sys.executable, "-m", "incomes_server.cli", "transplant", *map(str, options)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    peak = 0.0
    while child.poll() is None:
        peak = max(peak, _own_mib(child.pid))
        time.sleep(POLL_S)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, child.args)
    return peak


def _own_mib(pid: int) -> float:
    """Without pages of mapped files: those are the page cache's, and as many as it likes to map."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except ProcessLookupError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")), 0.0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
