"""Which routes of vLLM's app the chat port serves. Default deny: a new route of a new vLLM is refused until proven."""

from __future__ import annotations

from functools import cache
from typing import Any

COMPLETIONS = "/v1/completions"
GENERATION = frozenset({"/v1/chat/completions", COMPLETIONS})
"""Routes that generate; each takes `edits` and answers with the `x-incomes-*` headers."""

PASSED = frozenset(
    {
        ("GET", "/v1/models"),
        ("GET", "/v1/models/{model}"),
        ("GET", "/version"),
        ("GET", "/ping"),
        ("GET", "/load"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
        ("GET", "/plugins/incomes/status"),
        ("POST", "/tokenize"),
        ("POST", "/detokenize"),
    }
)
"""Routes, as (method, path), that generate nothing and are passed to vLLM unchanged."""


def is_passed(method: str, path: str) -> bool:
    """Whether vLLM's app answers the request as it is."""
    if path.startswith("/v1/models/"):
        path = "/v1/models/{model}"
    return method == "OPTIONS" or (method, path) in PASSED


def request_model(path: str) -> Any:
    """vLLM's model of the body of a generation route."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest

    return ChatCompletionRequest if path == "/v1/chat/completions" else CompletionRequest


@cache
def known_fields(path: str) -> frozenset[str]:
    """Body fields of a generation route: vLLM's own, and those the OpenAI client can send (vLLM ignores a few)."""
    from openai.types import completion_create_params
    from openai.types.chat import completion_create_params as chat_create_params

    is_chat = path == "/v1/chat/completions"
    theirs = (chat_create_params if is_chat else completion_create_params).CompletionCreateParamsBase.__annotations__
    names = set(theirs) | {"stream"}
    for name, info in request_model(path).model_fields.items():
        names |= {name} | ({info.alias} if info.alias else set())
    return frozenset(names)
