"""A recalled text as an OpenAI answer: what of it the caller wants, and the JSON body or the stream around it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from incomes_server.api.chat.resolve import Resolved
from incomes_server.api.chat.respond import STAMP, with_edits
from starlette.types import Send

from incomes_plugin.gist.edit import EditKey

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from incomes_plugin.lab.verbatim.serving import RecallStream

HEADER = "x-incomes-verbatim"


def header_of(edit: EditKey, source: str, reason: str | None) -> str:
    """Value of `HEADER`: which verbatim edit leads an answer, and how its text comes."""
    parts = [edit[0], f"version={edit[1]}", f"source={source}"]
    return "; ".join([*parts, *([f"reason={reason}"] if reason else [])])


def most_tokens(request: Any) -> int | None:
    """Most tokens of an answer; None: any number."""
    given = vars(request)  # the attribute of the older name warns
    newer: int | None = given.get("max_completion_tokens")
    return given.get("max_tokens") if newer is None else newer


@dataclass(frozen=True)
class CutText:
    """The part of a text that a request wants.

    Attributes:
        tokens: of this part.
        stop: `stop_reason` of vLLM: the stop string or token that ended it.
    """

    text: str
    tokens: int
    finish_reason: str
    stop: str | int | None

    @classmethod
    def of(cls, text: str, tokenizer: PreTrainedTokenizerBase, request: Any) -> CutText:
        """Up to the first of: the end, as many tokens as wanted, a stop string, a stop token."""
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, starts = list(encoded["input_ids"]), [start for start, _ in encoded["offset_mapping"]] + [len(text)]
        most = most_tokens(request)
        ends: list[tuple[int, str, str | int | None]] = [(len(text), "stop", None)]
        if most is not None and most < len(ids):
            ends.append((starts[most], "length", None))
        stop_ids = set(request.stop_token_ids or ())
        ends += [(starts[i], "stop", token) for i, token in enumerate(ids) if token in stop_ids][:1]
        stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
        kept = request.include_stop_str_in_output
        ends += [(at + len(s) * kept, "stop", s) for s in stops if s and (at := text.find(s)) >= 0]
        end, reason, stop = min(ends, key=lambda each: each[0])
        return cls(text[:end], sum(start < end for start in starts[:-1]), reason, stop)


@dataclass(frozen=True)
class Probed:
    """vLLM's answer to a probe, and the verbatim edits among the picks of its prompts that one leads."""

    answer: dict[str, Any]
    leads: Mapping[int, Sequence[EditKey]]


@dataclass(frozen=True)
class Recalled:
    """A text on its way out."""

    edit: EditKey
    resolved: Resolved
    probed: Probed
    cut: CutText
    stream: RecallStream

    def pieces(self) -> AsyncIterator[str]:
        """Pieces of the wanted part."""
        return self.stream.pieces(len(self.cut.text))

    @property
    def header(self) -> str:
        """Value of the response header, as far as is known now."""
        return header_of(self.edit, self.stream.source, self.stream.reason)

    def edits(self, answers: int) -> dict[str, Any]:
        """The `edits` object."""
        edit, version = self.edit
        snapshot, label = self.resolved.snapshot, self.resolved.label
        own = {"applied": [{"edit": edit, "version": version, "weight": 1.0}], "none_weight": 0.0}
        own |= {"verbatim": {"edit": edit, "version": version} | self._how()}
        place = {"edit_set": snapshot.edit_set, "snapshot": snapshot.id, "reason": self.resolved.reason}
        place |= {} if label is None else {"label": label}
        return {**place, **own, "choices": [{"index": index, **own} for index in range(answers)]}

    def _how(self) -> dict[str, Any]:
        return {"source": self.stream.source, "reason": self.stream.reason}

    def usage(self, answers: int) -> dict[str, Any]:
        """vLLM's `usage`, with the tokens of the text."""
        usage = dict(self.probed.answer["usage"])
        tokens = answers * self.cut.tokens
        return {**usage, "completion_tokens": tokens, "total_tokens": usage["prompt_tokens"] + tokens}

    @property
    def finish(self) -> dict[str, Any]:
        """How each choice ends."""
        return {"finish_reason": self.cut.finish_reason, "stop_reason": self.cut.stop}


async def send_json(recalled: Recalled, request: Any, send: Send) -> None:
    """The whole answer at once, in the shape of vLLM's answer to the probe."""
    text = "".join([piece async for piece in recalled.pieces()])
    answers = request.n or 1
    (probed,) = recalled.probed.answer["choices"]
    said: dict[str, Any] = {"text": text}
    if "message" in probed:
        said = {"message": {**_emptied(probed["message"]), "role": probed["message"]["role"], "content": text}}
    of_prompt = {name: value for name, value in probed.items() if name.startswith("prompt_")}
    choice = {**_emptied(probed), **of_prompt, **said, **recalled.finish}
    choices = [{**choice, "index": index} for index in range(answers)]
    answer = {**recalled.probed.answer, "choices": choices, "usage": recalled.usage(answers)}
    body = json.dumps({**answer, "edits": recalled.edits(answers)}, ensure_ascii=False).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await _start(recalled, headers, send)
    await send({"type": "http.response.body", "body": body})


def _emptied(part: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a part of the probe's answer, without what the probe generated."""
    return {name: [] if isinstance(value, list) and name == "tool_calls" else None for name, value in part.items()}


async def send_stream(recalled: Recalled, request: Any, send: Send) -> None:
    """Each piece as it is released. Headers go out with the first one, so that they say how the text begins to come."""
    is_chat = "message" in recalled.probed.answer["choices"][0]
    stamp = {key: recalled.probed.answer[key] for key in STAMP if key in recalled.probed.answer}
    if is_chat:
        stamp["object"] = "chat.completion.chunk"
    indices = range(request.n or 1)
    started = False

    async def event(data: object) -> None:
        line = data if isinstance(data, str) else json.dumps({**stamp, **data}, ensure_ascii=False)  # type: ignore[dict-item]
        await send({"type": "http.response.body", "body": f"data: {line}\n\n".encode(), "more_body": True})

    async def said(part: Mapping[str, Any], **end: Any) -> None:
        for index in indices:
            told = {"delta": part} if is_chat else {"text": part.get("content", "")}
            await event({"choices": [{"index": index, **told, "logprobs": None, "finish_reason": None, **end}]})

    async for piece in recalled.pieces():
        if not started:
            await _start(recalled, [(b"content-type", b"text/event-stream; charset=utf-8")], send)
            started = True
            if is_chat:
                await said({"role": "assistant", "content": ""})
        await said({"content": piece})
    if not started:  # a stop string at the very beginning
        await _start(recalled, [(b"content-type", b"text/event-stream; charset=utf-8")], send)
    await said({}, **recalled.finish)
    edits = recalled.edits(len(indices))
    await event({"choices": [with_edits(choice) for choice in edits["choices"]] if is_chat else [], "edits": edits})
    if request.stream_options is not None and request.stream_options.include_usage:
        await event({"choices": [], "usage": recalled.usage(len(indices)), "edits": edits})
    await event("[DONE]")
    await send({"type": "http.response.body", "body": b""})


async def _start(recalled: Recalled, headers: list[tuple[bytes, bytes]], send: Send) -> None:
    own = (HEADER.encode(), recalled.header.encode())
    await send({"type": "http.response.start", "status": 200, "headers": [*headers, own]})
