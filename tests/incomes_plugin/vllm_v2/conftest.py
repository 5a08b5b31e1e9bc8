"""Engines for the V2 tests: a tiny random Llama, served by V1 or V2 in a child process each (see `triton_cpu.py`)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from incomes_plugin.gist import GistShape
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.selection.scale import LogScale

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
    "disable_log_stats": True,
}
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "TORCHDYNAMO_DISABLE": "1",  # V1 compiles its logprob helper: 4 s a process
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_PLUGINS": "",  # requests carry their tags as the worker sees them; pinning is tested elsewhere
}
PLUGIN: dict[str, Any] = {
    "worker_cls": "incomes_plugin.vllm.worker.EditWorker",
    "additional_config": {"incomes": {"pool_gists": 512}},
}
SWITCHES = {
    "v1": {"VLLM_USE_V2_MODEL_RUNNER": "0"},
    "v2": {"VLLM_USE_V2_MODEL_RUNNER": "1", "TRITON_INTERPRET": "1"},
}


class EngineProcess:
    """A child process with one model runner: a stock engine and one with the selection layer, of the same model.

    A second engine in the process costs next to nothing; importing vLLM costs 10 s.
    """

    def __init__(self, runner: str, model: Path, log: Path) -> None:
        ours, theirs = socket.socketpair()
        variables = {**os.environ, **ENVIRONMENT, **SWITCHES[runner]}
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
        stock = {"model": str(model), **OPTIONS}
        self._ask({"stock": stock, "edits": {**stock, **PLUGIN}}, STARTUP_S)

    def engine(self, name: str) -> RemoteEngine:
        """`stock` or `edits`."""
        return RemoteEngine(lambda method, args: self._ask((name, method, args), CALL_S))

    def close(self) -> None:
        """End the process, which ends by itself after an error or a None."""
        if self._pipe.closed:
            return
        with suppress(BrokenPipeError):
            self._pipe.send(None)
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._pipe.close()

    def _ask(self, message: Any, timeout_s: float) -> Any:
        try:
            self._pipe.send(message)
            ok, value = self._pipe.recv() if self._pipe.poll(timeout_s) else (False, f"no answer in {timeout_s} s")
        except (EOFError, OSError):
            ok, value = False, "the engine process has ended"
        if not ok:
            self.close()
            pytest.fail(f"{value}\n--- end of its log ---\n{self._log.read_text()[-3000:]}", pytrace=False)
        return value


@dataclass(frozen=True)
class RemoteEngine:
    """One engine of a child process; every method of `child.Engine` is callable by `call`."""

    ask: Callable[[str, tuple[Any, ...]], Any]

    def call(self, method: str, *args: Any) -> Any:
        return self.ask(method, args)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, adapter: EditAdapter) -> Path:
    """Random Llama with the adapter: 4 layers, 2 query heads over 1 kv head of 32, words `t0` … `t127`."""
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
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="t0", bos_token="t1", eos_token="t2")
    tokenizer.save_pretrained(path)
    adapter.save(path)
    return path


@pytest.fixture(scope="session")
def adapter() -> EditAdapter:
    """Gist layers 2 and 3, up to 2 gists an edit, random maps: large enough that edits change the answers."""
    shape = GistShape(layers=(2, 3), max_gists=2, num_kv_heads=1, head_dim=32)
    random = torch.Generator().manual_seed(1)

    def near_identity(heads: int) -> torch.Tensor:
        return torch.eye(32) + 0.05 * torch.randn(2, heads, 32, 32, generator=random)

    return EditAdapter(
        shape=shape,
        gist_token_ids=(126, 127),
        bos_token_id=1,
        max_edit_tokens=64,
        scale=LogScale(),
        zero_keys=torch.randn(2, 1, 32, generator=random),
        query_map=near_identity(2),
        key_map=near_identity(1),
        value_map=near_identity(1),
    )


@pytest.fixture(scope="session")
def v1(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """Engines on vLLM's V1 model runner."""
    process = EngineProcess("v1", checkpoint, tmp_path_factory.mktemp("v1") / "log")
    yield process
    process.close()


@pytest.fixture(scope="session")
def v2(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """Engines on vLLM's V2 model runner."""
    process = EngineProcess("v2", checkpoint, tmp_path_factory.mktemp("v2") / "log")
    yield process
    process.close()


@pytest.fixture(scope="session")
def stock_v1(v1: EngineProcess) -> RemoteEngine:
    """V1 without our plugin."""
    return v1.engine("stock")


@pytest.fixture(scope="session")
def stock_v2(v2: EngineProcess) -> RemoteEngine:
    """V2 without our plugin."""
    return v2.engine("stock")


@pytest.fixture(scope="session")
def edits_v1(v1: EngineProcess) -> RemoteEngine:
    """V1 with the selection layer."""
    return v1.engine("edits")


@pytest.fixture(scope="session")
def edits_v2(v2: EngineProcess) -> RemoteEngine:
    """V2 with the selection layer."""
    return v2.engine("edits")


@pytest.fixture(scope="session")
def prompt() -> Callable[[int, int], list[int]]:
    """`prompt(first, length)`: BOS and a walk through the vocabulary that leaves out the gist tokens."""
    return lambda first, length: [1] + [3 + (first + 7 * i) % 120 for i in range(length - 1)]


@pytest.fixture(scope="session")
def assert_same() -> Callable[..., None]:
    """`assert_same(ours, theirs, atol)`: equal tokens, logprobs within `atol` (0 = bit-identical)."""

    def assert_same(ours: list[Any], theirs: list[Any], atol: float) -> None:
        for (tokens, logprobs), (other_tokens, other_logprobs) in zip(ours, theirs, strict=True):
            assert tokens == other_tokens
            for step, other in zip(logprobs, other_logprobs, strict=True):
                assert step == pytest.approx(other, abs=atol, rel=0)

    return assert_same
