"""The donor's tokenizer, made fit for the base's body: its special tokens, roles, template and habits come along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import AddedToken, Tokenizer, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.transplant.special import Specials
from incomes_plugin.lab.transplant.tokens import ROLES
from incomes_plugin.lab.transplant.word_start import set_word_start, word_start


@dataclass(frozen=True)
class FittedTokenizer:
    """The new checkpoint's tokenizer.

    Attributes:
        tokenizer: to be saved beside the checkpoint.
        carried_ids: new ids of the base's tokens that the donor lacked.
        word_start_kept: whether the base's space before text could be kept.
    """

    tokenizer: PreTrainedTokenizerFast
    carried_ids: dict[int, int]
    word_start_kept: bool


def fit_tokenizer(base: PreTrainedTokenizerBase, donor: PreTrainedTokenizerBase, specials: Specials) -> FittedTokenizer:
    """The donor's pieces and ids; everything else as the base has it."""
    backend = Tokenizer.from_str(donor.backend_tokenizer.to_str())
    kept = set_word_start(backend, word_start(base.backend_tokenizer))
    options = {index: token for index, token in base.backend_tokenizer.get_added_tokens_decoder().items()}
    backend.add_special_tokens([_same(options.get(token.id), token.name) for token in specials.carried])
    carried = {token.id: int(str(backend.token_to_id(token.name))) for token in specials.carried}
    backend.post_processor = _around(base, backend, specials)
    fitted = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        model_max_length=base.model_max_length,
        **{f"{role}_token": name for role, name in _roles(base, donor, specials).items()},
    )
    fitted.chat_template = _template(base, specials)
    return FittedTokenizer(fitted, carried, kept)


def _same(token: AddedToken | None, name: str) -> AddedToken:
    if token is None:
        return AddedToken(name, normalized=False, special=True)
    sides = {"lstrip": token.lstrip, "rstrip": token.rstrip, "single_word": token.single_word}
    return AddedToken(name, normalized=token.normalized, special=True, **sides)


def _roles(base: PreTrainedTokenizerBase, donor: PreTrainedTokenizerBase, specials: Specials) -> dict[str, str]:
    """Name of the token in every role; the donor's where the base has none and no token would get two roles."""
    names = {role: getattr(base, f"{role}_token", None) for role in ROLES}
    roles = {role: specials.renamed.get(str(name), str(name)) for role, name in names.items() if name}
    unknown = getattr(donor, "unk_token", None)
    if "unk" not in roles and unknown and str(unknown) not in roles.values():
        roles["unk"] = str(unknown)
    return roles


def _template(base: PreTrainedTokenizerBase, specials: Specials) -> str | None:
    """The base's chat template; tokens it spells out get the names they have now."""
    template = base.chat_template
    if isinstance(template, dict):
        raise InvalidValue("several chat templates: keep the one that is served", param="base")
    for old, new in specials.renamed.items() if template else ():
        template = str(template).replace(old, new)
    return template


def _around(base: PreTrainedTokenizerBase, backend: Tokenizer, specials: Specials) -> processors.TemplateProcessing:
    """Special tokens around a text, as the base puts them there."""
    bare: Sequence[int] = base("x", add_special_tokens=False)["input_ids"]
    full: Sequence[int] = base("x")["input_ids"]
    start = next(i for i in range(len(full)) if list(full[i : i + len(bare)]) == list(bare))
    old = [str(base.convert_ids_to_tokens(index)) for index in (*full[:start], *full[start + len(bare) :])]
    names = [specials.renamed.get(name, name) for name in old]
    single = [*names[:start], "$A", *names[start:]]
    return processors.TemplateProcessing(
        single=single,
        pair=[*single, *("$B:1" if part == "$A" else f"{part}:1" for part in single)],
        special_tokens=[(name, backend.token_to_id(name)) for name in dict.fromkeys(names)],
    )
