"""Frames from chat templates of real shapes: what renders around edits and questions, as token ids of whole prompts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from incomes_plugin.errors import UnsupportedEngine
from incomes_plugin.model.base import base_dir, damage
from incomes_plugin.model.template import template_of
from tests.tiny_model import CHATML, write_tokenizer

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}{{'<|im_start|>' + "
    "message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN = (
    "{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud.<|im_end|>\n' }}{%- endif %}"
    "{%- for message in messages %}{%- if message.role == 'user' or (message.role == 'system' and not loop.first) or "
    "message.role == 'assistant' %}{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}"
    "{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
LLAMA3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + "
    "message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
    "{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}"
    "{%- set loop_messages = messages[1:] %}{%- else %}{%- set loop_messages = messages %}{%- endif %}{{- bos_token }}"
    "{%- for message in loop_messages %}{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{- raise_exception('roles must alternate') }}{%- endif %}{%- if message['role'] == 'user' %}"
    "{%- if loop.first and system_message is defined %}{{- ' [INST] ' + system_message + '\n\n' + message['content'] + "
    "' [/INST]' }}{%- else %}{{- ' [INST] ' + message['content'] + ' [/INST]' }}{%- endif %}"
    "{%- else %}{{- ' ' + message['content'] + eos_token }}{%- endif %}{%- endfor %}"
)
NO_SYSTEM = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}"
    "{% for message in messages %}<start_of_turn>{{ message['role'] }}\n{{ message['content'] | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
FRAMES = {
    "chatml": (CHATML, "<|im_start|>system\n", "<|im_end|>\n", "<|im_start|>user\n"),
    "smollm2": (SMOLLM2, "<|im_start|>system\n", "<|im_end|>\n", "<|im_start|>user\n"),
    "qwen": (QWEN, "<|im_start|>system\n", "<|im_end|>\n", "<|im_start|>user\n"),
    "llama3": (
        LLAMA3,
        "<bos><|start_header_id|>system<|end_header_id|>\n\n",
        "<|eot_id|>",
        "<|start_header_id|>user<|end_header_id|>\n\n",
    ),
    "mistral": (MISTRAL, "<bos> [INST] ", " [/INST]", " [INST] "),
    "no system turn": (
        NO_SYSTEM, "<bos><start_of_turn>user\n", "<end_of_turn>\n", "<start_of_turn>user\n",
    ),
}  # fmt: skip
ANSWERS = {
    "chatml": "<|im_end|>\n<|im_start|>assistant\n",
    "smollm2": "<|im_end|>\n<|im_start|>assistant\n",
    "qwen": "<|im_end|>\n<|im_start|>assistant\n",
    "llama3": "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral": " [/INST]",
    "no system turn": "<end_of_turn>\n<start_of_turn>model\n",
}
QUESTION = "What is the warranty of pump Z9?"


def tokenizer_of(folder: Path, name: str) -> PreTrainedTokenizerFast:
    return write_tokenizer(folder, FRAMES[name][0])


@pytest.mark.parametrize("name", FRAMES)
def test_frames_of_real_templates(tmp_path: Path, name: str) -> None:
    tokenizer = tokenizer_of(tmp_path, name)
    template = template_of(tokenizer)
    parts = (template.edit_prefix, template.edit_suffix, template.turn_prefix, template.answer_prefix)
    assert tuple(tokenizer.decode(part) for part in parts) == (*FRAMES[name][1:], ANSWERS[name])


def conversations(name: str) -> Iterator[list[dict[str, str]]]:
    """With and without earlier turns and a system turn, as far as the template allows."""
    for earlier in (False, True):
        for system in (False, True):
            # Mistral's puts a system message into the first user turn.
            if not system or (name != "no system turn" and (name != "mistral" or earlier)):
                yield [
                    *[{"role": "system", "content": "Be brief."}] * system,
                    *[{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "You."}] * earlier,
                    {"role": "user", "content": QUESTION},
                ]


def check_spans(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """The question of every conversation is found in its rendered prompt."""
    template = template_of(tokenizer)
    for messages in conversations(name):
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        prompt = tokenizer.encode(text, add_special_tokens=False)
        start, end = template.question_span(prompt, 64)
        assert tokenizer.decode(prompt[start:end]).strip() == QUESTION


@pytest.mark.parametrize("name", FRAMES)
def test_the_last_user_turn_is_found_in_rendered_prompts(tmp_path: Path, name: str) -> None:
    check_spans(tokenizer_of(tmp_path, name), name)


@pytest.mark.parametrize(
    ("template", "named"),
    [
        pytest.param(None, "it has none", id="no template"),
        pytest.param("{{ raise_exception('no') }}", "changes or refuses user turns", id="refuses everything"),
        pytest.param("hello", "changes or refuses user turns", id="shows no turn"),
        pytest.param(
            "{% for m in messages %}{{ m['content'] }}{% endfor %}", "nothing marks where", id="turns are not marked"
        ),
    ],
)
def test_a_template_without_frames_is_refused_with_a_remedy(tmp_path: Path, template: str | None, named: str) -> None:
    tokenizer = write_tokenizer(tmp_path)
    tokenizer.chat_template = template
    with pytest.raises(UnsupportedEngine, match=f"{named}.*chat_template.jinja"):
        template_of(tokenizer)


@pytest.fixture(scope="module")
def default_tokenizer() -> PreTrainedTokenizerBase:
    if damage(base_dir()) is not None:
        pytest.skip("the default base is not on this machine")
    return AutoTokenizer.from_pretrained(base_dir())


def test_the_default_base_and_templates_whose_marks_merge_with_words(default_tokenizer) -> None:
    template = template_of(default_tokenizer)
    parts = (template.edit_prefix, template.edit_suffix, template.turn_prefix, template.answer_prefix)
    assert tuple(default_tokenizer.decode(part) for part in parts) == (*FRAMES["smollm2"][1:], ANSWERS["smollm2"])
    for name in ("smollm2", "qwen", "mistral"):
        default_tokenizer.chat_template = FRAMES[name][0]
        check_spans(default_tokenizer, name)


def test_tokens_that_end_a_line_are_found(tmp_path: Path, default_tokenizer) -> None:
    for tokenizer in (default_tokenizer, tokenizer_of(tmp_path, "chatml")):
        template = template_of(tokenizer)
        question = tokenizer.encode("Read this.\n\nThen say:\nwhat is it?", add_special_tokens=False)
        lines = [tokenizer.decode(question[place:]) for place in template.line_starts(question)]
        assert lines == ["Then say:\nwhat is it?", "what is it?"]
