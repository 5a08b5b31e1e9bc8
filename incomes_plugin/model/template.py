"""Finds out which token ids a chat template puts around texts (`PromptTemplate`). Called when an adapter is made.

The template is rendered with several marker texts. The token ids in front of and behind the marker that are the same
for all of them are the frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from incomes_plugin.errors import UnsupportedEngine
from incomes_plugin.selection.question import PromptTemplate

_MARKERS = ("Quartz", "7", "(zenith)")
"""Marker texts whose first and last tokens differ from each other in any tokenizer."""

_FIXED = "Basalt"

Ids = tuple[int, ...]


def template_of(tokenizer: PreTrainedTokenizerBase) -> PromptTemplate:
    """The frames of edits, user turns and answers.

    An edit is framed as a system turn of its own; as a user turn where the template has none (Mistral). What the
    template puts in front of every prompt, such as a BOS token, is in front of an edit too. A default system message is
    not.

    Raises:
        UnsupportedEngine: there is no chat template, or it does not show user turns as they are.
    """
    if not tokenizer.chat_template:
        raise _unsupported("it has none")
    system = _frame(tokenizer, lambda text: [("system", text)])
    if system is not None:
        asked = _frame(tokenizer, lambda text: [("system", _FIXED), ("user", text)], answer=True)
        alone = _ids(tokenizer, [("system", _FIXED)])
        if asked is not None and alone is not None and asked[0][: len(alone)] == alone:
            return _checked(system, asked[0][len(alone) :], asked[1], _line_ends(tokenizer))
    user = _frame(tokenizer, lambda text: [("user", text)])
    again = _frame(tokenizer, lambda text: [("user", _FIXED), ("assistant", _FIXED), ("user", text)], answer=True)
    if user is None or again is None:
        raise _unsupported("it changes or refuses user turns")
    return _checked(user, _common_end([user[0], again[0]]), again[1], _line_ends(tokenizer))


def _checked(edit: tuple[Ids, Ids], turn_prefix: Ids, answer_prefix: Ids, line_ends: Ids) -> PromptTemplate:
    if not turn_prefix or not answer_prefix:
        raise _unsupported("nothing marks where a user turn begins, or where the answer does")
    return PromptTemplate(*edit, turn_prefix, answer_prefix, line_ends)


def _line_ends(tokenizer: PreTrainedTokenizerBase) -> Ids:
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    return tuple(token for token, text in enumerate(texts) if "\n" in text)


def _unsupported(reason: str) -> UnsupportedEngine:
    return UnsupportedEngine(
        f"the tokenizer's chat template cannot frame edits and questions: {reason}; take an instruction-tuned base, or "
        "give the tokenizer a template (chat_template.jinja) with a user turn and a generation prompt"
    )


_Turns = Sequence[tuple[str, str]]


def _frame(
    tokenizer: PreTrainedTokenizerBase, turns: Callable[[str], _Turns], *, answer: bool = False
) -> tuple[Ids, Ids] | None:
    """Token ids before and behind the marker text in its turn; None where the template does not show it."""
    rendered = [_ids(tokenizer, turns(marker), marker, answer=answer) for marker in _MARKERS]
    found = [ids for ids in rendered if ids is not None]
    return (_common_start(found), _common_end(found)) if len(found) == len(_MARKERS) else None


def _ids(
    tokenizer: PreTrainedTokenizerBase, turns: _Turns, marker: str = _FIXED, *, answer: bool = False
) -> Ids | None:
    """Token ids of a rendered conversation; None where the template refuses it or leaves the marker out."""
    messages = [{"role": role, "content": text} for role, text in turns]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer)
    except TemplateError:
        return None
    return tuple(tokenizer.encode(text, add_special_tokens=False)) if marker in text else None


def _common_start(sequences: Sequence[Ids]) -> Ids:
    length = 0
    for tokens in zip(*sequences, strict=False):
        if len(set(tokens)) > 1:
            break
        length += 1
    return sequences[0][:length]


def _common_end(sequences: Sequence[Ids]) -> Ids:
    return _common_start([ids[::-1] for ids in sequences])[::-1]
