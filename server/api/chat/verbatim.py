"""Answers of verbatim edits: where one leads what applies to a question that names it, the answer is its text.

Only snapshots with verbatim edits come here. The request is first run for one token as a probe (`EditScope.probe`),
which says what edit leads; vLLM checks the request meanwhile. Where a verbatim edit leads, its text is sent as vLLM
would send an answer (`verbatim_answer.py`); otherwise the request goes on as always, and verbatim edits are not read.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from incomes_server.api.chat.fields import ParsedBody
from incomes_server.api.chat.resolve import Resolved
from incomes_server.api.chat.verbatim_answer import (
    HEADER,
    CutText,
    Probed,
    Recalled,
    header_of,
    most_tokens,
    send_json,
    send_stream,
)
from incomes_server.api.http.body import with_body_length
from incomes_server.api.http.metrics import VERBATIM_ANSWERS
from incomes_server.api.http.recalls import settle_recall
from incomes_server.edits.verbatim import RecallKeys, VerbatimText, asks_for
from incomes_server.store.client import StoreClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from incomes_plugin.errors import EditNotFound, InvalidRequest
from incomes_plugin.gist.edit import EditKey

if TYPE_CHECKING:
    from incomes_plugin.lab.verbatim.serving import Recaller
    from incomes_plugin.vllm.engine import EditEngine
    from incomes_plugin.vllm.pin import EditScope

UNUSED = "unused"
"""Source of an answer that a verbatim edit leads and that is generated all the same; the reason says why."""
MOST_ANSWERS = 128
"""More answers to one prompt than OpenAI gives are left to vLLM to make or refuse."""
_NOT_PROBED = (
    "stream_options", "logprobs", "top_logprobs", "prompt_logprobs", "echo", "best_of", "min_tokens", "ignore_eos",
    "stop", "stop_token_ids", "response_format", "structured_outputs", "use_beam_search", "max_completion_tokens",
    "bad_words", "allowed_token_ids", "logit_bias", "parallel_tool_calls",
)  # fmt: skip
"""Fields that shape what is generated or told of it, and not the prompt."""
_TRY_AGAIN = (408, 429)
"""Refusals that say nothing of the request."""


@dataclass(frozen=True)
class VerbatimChat:
    """See the module docstring.

    Args:
        app: vLLM's.
    """

    app: ASGIApp
    engine: EditEngine
    store: StoreClient
    recaller: Recaller

    async def answer(
        self, scope: Scope, parsed: ParsedBody, project: str, resolved: Resolved, edit_scope: EditScope, send: Send
    ) -> dict[str, str] | None:
        """Answer the request, if a verbatim edit leads it.

        Returns:
            None when it is answered. Otherwise headers of the answer that is generated now: why the verbatim edit that
            leads it is not used; none when no verbatim edit leads.

        Raises:
            InvalidRequest: several prompts, one of which a verbatim edit answers.
        """
        if parsed.understood is None:
            return {}  # vLLM refuses the request itself
        probed = await self._probe(scope, parsed, edit_scope)
        if isinstance(probed, _Collected):
            await probed.pass_on(send)
            return None
        if probed is None or not probed.leads:
            return {}
        questions = await self._questions(parsed)
        found = [await self._named(project, edits, questions[prompt]) for prompt, edits in sorted(probed.leads.items())]
        edit, stored, why = next((each for each in found if each[1] is not None), found[0])
        if stored is not None and len(questions) > 1:
            raise InvalidRequest(
                "one of these prompts is answered by a verbatim edit, and the others are not; send them one by one",
                param="prompt",
            )
        why = why or _unfit(parsed.understood)
        if stored is None or why is not None:
            VERBATIM_ANSWERS.labels(UNUSED, why or "").inc()
            return {HEADER: header_of(edit, UNUSED, why)}
        await self._recall(parsed.understood, stored, edit, resolved, probed, send)
        return None

    async def _named(
        self, project: str, edits: Sequence[EditKey], question: str
    ) -> tuple[EditKey, VerbatimText | None, str | None]:
        """The first of these edits that a question names, with its text; else the first, and why it is not used."""
        reasons = []
        for edit in edits:
            try:
                stored = await self.store.get_verbatim(project, *edit)
            except EditNotFound:  # erased since the snapshot was made
                reasons.append("erased")
                continue
            if asks_for(RecallKeys(stored.title, stored.questions), question):
                return edit, stored, None
            reasons.append("not_named")
        return edits[0], None, reasons[0]

    async def _questions(self, parsed: ParsedBody) -> list[str]:
        """What the last user turn says, or each plain prompt."""
        body = json.loads(parsed.body)
        if hasattr(parsed.understood, "messages"):
            turns = [turn.get("content") for turn in body["messages"] if turn.get("role") == "user"]
            said = turns[-1] if turns else ""
            parts = said if isinstance(said, list) else [{"text": said or ""}]
            return [" ".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))]
        given = body["prompt"]
        prompts = [given] if isinstance(given, str) or isinstance(given[0], int) else given
        tokenizer = (await self.recaller.frame()).tokenizer
        return [one if isinstance(one, str) else str(tokenizer.decode(one)) for one in prompts]

    async def _probe(self, scope: Scope, parsed: ParsedBody, edit_scope: EditScope) -> Probed | _Collected | None:
        """Run the request for one token. None when vLLM refuses it, as it will refuse the request itself; what it says
        instead when it cannot answer now: the request may be answered, but then without what the probe was to find."""
        from incomes_plugin.vllm.pin import use_scope

        trace = f"probe_{secrets.token_hex(12)}"
        asked = {key: value for key, value in json.loads(parsed.body).items() if key not in _NOT_PROBED}
        asked |= {"max_tokens": 1, "stream": False, "n": 1}
        if asked.get("tools"):
            asked["tool_choice"] = "none"
        body = json.dumps(asked).encode()
        sent = _Collected()
        try:
            with use_scope(replace(edit_scope, trace=trace, probe=True)):
                await self.app(with_body_length(scope, body), _only(body), sent)
        finally:
            leads = await self.engine.leads(trace)
        if sent.status >= 500 or sent.status in _TRY_AGAIN:
            return sent
        return Probed(sent.json(), leads) if sent.status == 200 else None

    async def _recall(
        self, request: Any, stored: VerbatimText, edit: EditKey, resolved: Resolved, probed: Probed, send: Send
    ) -> None:
        """Send the text of an edit as the answer."""
        from incomes_plugin.lab.verbatim.serving import RecallStream

        stream = RecallStream(self.recaller, stored.text, stored.record, str(stored.state))
        cut = CutText.of(stored.text, (await self.recaller.frame()).tokenizer, request)
        recalled = Recalled(edit, resolved, probed, cut, stream)
        await (send_stream if request.stream else send_json)(recalled, request, send)
        VERBATIM_ANSWERS.labels(stream.source, stream.reason or "").inc()
        await settle_recall(self.store, edit, stream)


def _unfit(request: Any) -> str | None:
    """What of a request a stored text cannot honour; None when it can."""
    most = most_tokens(request)
    asked = {
        "n": not 1 <= (request.n or 1) <= MOST_ANSWERS,
        "max_tokens": most is not None and most < 1,
        "response_format": getattr(getattr(request, "response_format", None), "type", "text") != "text",
        "structured_outputs": getattr(request, "structured_outputs", None) is not None,
        "tool_choice": getattr(request, "tool_choice", None) not in (None, "none", "auto"),
        "echo": bool(getattr(request, "echo", False)),
        "suffix": bool(getattr(request, "suffix", None)),
        "use_beam_search": bool(getattr(request, "use_beam_search", False)),
        "prompt_logprobs": getattr(request, "prompt_logprobs", None) is not None,
        "min_tokens": bool(getattr(request, "min_tokens", 0)),
        "ignore_eos": bool(getattr(request, "ignore_eos", False)),
    }
    return next((name for name, present in asked.items() if present), None)


class _Collected:
    """An answer that is kept instead of being sent."""

    def __init__(self) -> None:
        self.status = 0
        self._start: Message = {}
        self._body = bytearray()

    async def __call__(self, message: Message) -> None:
        """Take one ASGI message."""
        if message["type"] == "http.response.start":
            self.status, self._start = message["status"], message
        self._body += message.get("body", b"")

    async def pass_on(self, send: Send) -> None:
        """Send it after all."""
        await send(self._start)
        await send({"type": "http.response.body", "body": bytes(self._body)})

    def json(self) -> dict[str, Any]:
        """The body."""
        found: dict[str, Any] = json.loads(self._body)
        return found


def _only(body: bytes) -> Receive:
    """Gives the body and nothing more: a probe is over before it is worth giving up."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if first:
            return first.pop()
        await asyncio.Event().wait()
        raise AssertionError

    return receive
