"""Recall in the serving engine: greedy decoding after `[template | K vectors]`, with nothing else in the context.

in: vectors of a verbatim text, from the server's process by RPC; out: token ids as the engine makes them.
A recall is a request of placeholder tokens in a prefix cache of its own. In the step that computes its prompt, the
vectors take the place of the placeholders' embeddings, in front of the model's first layer. vLLM's own prompt
embeddings stay off: they would move the embedding of every request out of the compiled graph, reserve a token in the
tokenizer, and open a door for clients.
"""

from __future__ import annotations

import inspect
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from incomes_plugin.errors import EngineLost, IncomesError, InvalidValue, SelectionFailed, UnsupportedEngine
from incomes_plugin.vllm.pin import use_capture
from incomes_plugin.vllm.rows import RequestTag, RowSpan

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.v1.engine.async_llm import AsyncLLM


@dataclass(frozen=True)
class RecallRows:
    """Prompt rows of one recall in a step.

    Attributes:
        first: position of the first vector in the prompt.
        vectors: `[K, hidden]` float32; none when they are not there, and what is said then is refused by its hashes.
    """

    span: RowSpan
    first: int
    vectors: torch.Tensor

    def write(self, embeddings: torch.Tensor) -> None:
        """Put the vectors whose rows are in the step into its embeddings `[T, hidden]`."""
        start = max(self.first, self.span.first_position)
        end = min(self.first + len(self.vectors), self.span.first_position + self.span.num_rows)
        if start < end:
            row = self.span.first_row + start - self.span.first_position
            part = self.vectors[start - self.first : end - self.first]
            embeddings[row : row + end - start] = part.to(embeddings)


class RecallVectors:
    """Vectors of the recalls of one worker by name, from their arrival until their request has ended.

    Args:
        model: vLLM's; its signature says whether it takes embeddings.
        eager: `runs_eagerly` of the engine. Compiled code and graphs are made for token ids: a step on embeddings would
            leave them for all its rows, and requests beside a recall would get other bits.
    """

    def __init__(self, model: torch.nn.Module, eager: bool) -> None:
        self._vectors: dict[str, torch.Tensor] = {}
        takes = "inputs_embeds" in inspect.signature(model.forward).parameters
        self._takes_embeddings = takes and hasattr(model, "embed_input_ids")
        self._is_possible = self._takes_embeddings and eager

    def __len__(self) -> int:
        return len(self._vectors)

    def put(self, name: str, data: bytes, count: int) -> None:
        """Keep `count` vectors, float32.

        Raises:
            UnsupportedEngine: the model takes no embeddings in place of tokens, or the engine compiles it.
        """
        if not self._is_possible:
            why = "the engine compiles the model" if self._takes_embeddings else "the served model takes no embeddings"
            raise UnsupportedEngine(f"{why}: verbatim texts are sent as they are stored")
        self._vectors[name] = torch.frombuffer(bytearray(data), dtype=torch.float32).view(count, -1)

    def drop(self, name: str) -> None:
        """Forget vectors; unknown names are ignored."""
        self._vectors.pop(name, None)

    def rows(self, tag: RequestTag, span: RowSpan) -> RecallRows:
        """The prompt rows of a recall."""
        return RecallRows(span, tag.first, self._vectors.get(tag.recall or "", torch.empty(0, 1)))


def runs_eagerly(config: VllmConfig) -> bool:
    """Whether no step runs compiled code or a graph (`--enforce-eager`)."""
    from vllm.config.compilation import CompilationMode, CUDAGraphMode

    compilation = config.compilation_config
    compiles = compilation.mode not in (None, CompilationMode.NONE)
    return not compiles and compilation.cudagraph_mode in (None, CUDAGraphMode.NONE)


def feed_vectors(model: torch.nn.Module, recalls: Callable[[], Sequence[RecallRows]]) -> None:
    """From now on a step with the prompt of a recall runs on embeddings. All other steps are what they were.

    Args:
        recalls: prompt rows of recalls in the running step.
    """

    def before_forward(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not (fed := recalls()):
            return None
        embeddings = module.embed_input_ids(kwargs["input_ids"])
        for rows in fed:
            rows.write(embeddings)
        return args, {**kwargs, "input_ids": None, "inputs_embeds": embeddings}

    model.register_forward_pre_hook(before_forward, with_kwargs=True)


@contextmanager
def engine_errors() -> Iterator[None]:
    """What vLLM raises for one request, as our errors."""
    from vllm.exceptions import VLLMClientError
    from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

    try:
        yield
    except EngineDeadError as error:
        raise EngineLost(f"the engine died: {error}") from error
    except VLLMClientError as error:
        if isinstance(error, IncomesError):
            raise
        raise InvalidValue(f"vLLM refuses the prompt: {error}") from error
    except EngineGenerateError as error:
        raise SelectionFailed(f"the engine could not run the request: {error.__cause__ or error}") from error


async def say(
    engine: AsyncLLM,
    call: Callable[..., Awaitable[Any]],
    template: Sequence[int],
    vectors: torch.Tensor,
    num_tokens: int,
) -> AsyncIterator[list[int]]:
    """See `EditEngine.recall`."""
    from vllm import SamplingParams
    from vllm.inputs.engine import tokens_input
    from vllm.sampling_params import RequestOutputKind

    hidden = engine.vllm_config.model_config.get_hidden_size()
    if vectors.ndim != 2 or not len(vectors) or vectors.shape[1] != hidden or not template:
        raise InvalidValue(f"vectors {tuple(vectors.shape)} after {len(template)} tokens, expected [K, {hidden}]")
    name, started = f"incomes-recall-{secrets.token_hex(8)}", False
    data = vectors.detach().float().cpu().contiguous().numpy().tobytes()
    params = SamplingParams(
        temperature=0, max_tokens=num_tokens + 1, ignore_eos=True, detokenize=False, output_kind=RequestOutputKind.DELTA
    )
    prompt = tokens_input([*template, *[template[-1]] * len(vectors)])
    stream = engine.generate(prompt, params, name)
    try:
        await call("incomes_put_vectors", name, data, len(vectors))
        with engine_errors():
            with use_capture(RequestTag(recall=name, first=len(template))):  # of the first step, which adds the request
                update = await anext(stream, None)
            started = update is not None
            while update is not None:
                yield list(update.outputs[0].token_ids)
                update = await anext(stream, None)
    finally:
        await stream.aclose()  # type: ignore[attr-defined]
        if not started:
            with suppress(EngineLost):
                await call("incomes_drop_vectors", name)
