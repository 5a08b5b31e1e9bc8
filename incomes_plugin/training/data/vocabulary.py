"""A tokenizer's chat template as token ids, taken apart once: what stands between the texts of a chat.

begin first_open QUESTION close ANSWER end (next QUESTION close ANSWER end)*
begin system_open SYSTEM system_next QUESTION close ANSWER end …
"""

from __future__ import annotations

import jinja2
from transformers import PreTrainedTokenizerBase

PLAIN_TEMPLATE = (
    "{{ bos_token or '' }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] }}\n"
    "{% elif message['role'] == 'user' %}Question: {{ message['content'] }}\nAnswer:\n"
    "{% else %}{{ message['content'] }}{{ eos_token }}\n{% endif %}{% endfor %}"
)
"""For a base language model whose tokenizer has no chat template; exported with the model."""

_SYSTEM, _FIRST, _REPLY, _SECOND = "XSYSTEMX", "XFIRSTX", "XREPLYX", "XSECONDX"


class Vocabulary:
    """Ids of the parts of a chat, and plain text encoding.

    Attributes:
        begin: what every conversation starts with.
        first_open: between that and the first question, if there is no system message.
        system_open, system_next: around a system message, in place of `first_open`.
        close: between a question and its answer.
        end: what ends an answer.
        next: between the end of an answer and the next question.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        if tokenizer.chat_template is None:
            tokenizer.chat_template = PLAIN_TEMPLATE
        first, self.close = self._parts([("user", _FIRST)], _FIRST)
        opening, self.system_next = self._system(first)
        shared = _shared_prefix(first, opening)
        self.begin, self.first_open, self.system_open = first[:shared], first[shared:], opening[shared:]
        history = [("user", _FIRST), ("assistant", _REPLY), ("user", _SECOND)]
        self.end, self.next = self._ending(self._parts(history, _REPLY, _SECOND)[1])

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; special tokens only where they are spelt out."""
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])  # type: ignore[arg-type]

    def _parts(self, messages: list[tuple[str, str]], *marks: str) -> list[list[int]]:
        """Ids of what the template puts before, between and after the marks."""
        chat = [{"role": role, "content": content} for role, content in messages]
        text = str(self._tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
        parts = []
        for mark in marks:
            part, found, text = text.partition(mark)
            if not found:
                raise jinja2.TemplateError(f"the chat template leaves {mark} out")
            parts.append(part)
        return [self.encode(part) for part in (*parts, text)]

    def _system(self, first: list[int]) -> tuple[list[int], list[int]]:
        """Ids around a system message; a template without that role gets it in front of the question."""
        try:
            opening, between, _ = self._parts([("system", _SYSTEM), ("user", _FIRST)], _SYSTEM, _FIRST)
        except jinja2.TemplateError:
            return first, self.encode("\n")
        return opening, between

    def _ending(self, between: list[int]) -> tuple[list[int], list[int]]:
        """Split what follows an answer behind the token that ends it."""
        stop = int(self._tokenizer.eos_token_id)  # type: ignore[arg-type]
        if stop not in between:
            return [stop], between
        return between[: between.index(stop) + 1], between[between.index(stop) + 1 :]


def _shared_prefix(one: list[int], other: list[int]) -> int:
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
