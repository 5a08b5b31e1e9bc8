"""Engines for the V2 tests: a tiny random Llama, served by V1 or V2 in a child process each (see `triton_cpu.py`)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

HERE = Path(__file__).parent
VOCAB = 128
STARTUP_S, CALL_S = 240, 240

# Tight on purpose: prompts of more than 48 tokens are prefilled in chunks, and 8 blocks of 32 tokens force preemption
# when four requests grow to 100 tokens each.
OPTIONS: dict[str, Any] = {
    "dtype": "float32",
    "enforce_eager": True,
    "distributed_executor_backend": "uni",
    "max_model_len": 128,
    "max_num_seqs": 8,
    "max_num_batched_tokens": 48,
    "block_size": 32,
    "num_gpu_blocks_override": 9,
    "enable_prefix_caching": True,
    "disable_log_stats": False,
}
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "TORCHDYNAMO_DISABLE": "1",  # V1 compiles its logprob helper: 4 s a process
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_HOST_IP": "127.0.0.1",
}
SWITCHES = {
    "v1": {"VLLM_USE_V2_MODEL_RUNNER": "0"},
    "v2": {"VLLM_USE_V2_MODEL_RUNNER": "1", "TRITON_INTERPRET": "1"},
}


class RemoteEngine:
    """A child process with one engine; every method of `child.Engine` is callable by `call`."""

    def __init__(self, runner: str, options: dict[str, Any], plugins: str, log: Path) -> None:
        ours, theirs = socket.socketpair()
        variables = {**os.environ, **ENVIRONMENT, **SWITCHES[runner], "VLLM_PLUGINS": plugins}
        self._log = log
        with log.open("w") as output, theirs:
            self._process = subprocess.Popen(
                [sys.executable, str(HERE / "child.py"), str(theirs.fileno())],
                env=variables,
                pass_fds=[theirs.fileno()],
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._pipe = Connection(ours.detach())
        self._pipe.send(options)
        self.runner: str = self._receive(STARTUP_S)

    def call(self, method: str, *args: Any) -> Any:
        self._pipe.send((method, args))
        return self._receive(CALL_S)

    def close(self) -> None:
        if self._process.poll() is None:
            self._pipe.send(None)
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._pipe.close()

    def _receive(self, timeout_s: float) -> Any:
        try:
            ok, value = self._pipe.recv() if self._pipe.poll(timeout_s) else (False, f"no answer in {timeout_s} s")
        except EOFError:
            ok, value = False, "the engine process ended"
        if not ok:
            pytest.fail(f"{value}\n--- end of its log ---\n{self._log.read_text()[-3000:]}", pytrace=False)
        return value


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random Llama: 4 layers, 2 query heads over 1 kv head of 32, words `t0` … `t127`."""
    path = tmp_path_factory.mktemp("v2_checkpoint")
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=128,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=True,
        initializer_range=0.3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(path)
    words = Tokenizer(WordLevel({f"t{i}": i for i in range(VOCAB)}, unk_token="t0"))
    words.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="t0", bos_token="t1", eos_token="t2").save_pretrained(
        path
    )
    return path


@pytest.fixture(scope="session")
def stock_v1(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteEngine]:
    """vLLM's V1 runner without our plugin."""
    engine = RemoteEngine("v1", {"model": str(checkpoint), **OPTIONS}, "", tmp_path_factory.mktemp("v1") / "log")
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def stock_v2(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteEngine]:
    """vLLM's V2 runner without our plugin."""
    engine = RemoteEngine("v2", {"model": str(checkpoint), **OPTIONS}, "", tmp_path_factory.mktemp("v2") / "log")
    yield engine
    engine.close()
