"""A text as an OpenAI answer: cut where the caller wants, whole or streamed, its edit named; or not used, and why."""

import json
from types import SimpleNamespace

import pytest
from incomes_server.api.chat.fields import parse_body
from incomes_server.api.chat.resolve import Resolved
from incomes_server.api.chat.verbatim import VerbatimChat
from incomes_server.api.chat.verbatim_answer import CutText
from incomes_server.api.http.metrics import VERBATIM_ANSWERS
from incomes_server.edits.verbatim import RecallKeys, VerbatimState, VerbatimText, asks_for
from prometheus_client import REGISTRY

from incomes_plugin.errors import EditNotFound, InvalidRequest
from incomes_plugin.lab.verbatim.frame import RecallFrame
from incomes_plugin.lab.verbatim.serving import Recaller
from incomes_plugin.pool.snapshot import SnapshotRef
from incomes_plugin.vllm.pin import EditScope, scope_var
from tests.tiny_model import write_tiny_model

TEXT = "Either party may cancel this contract with 30 days' written notice. Zöe signs."
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
CHAT_SAID = {"role": "assistant", "content": "x", "tool_calls": []}
SNAPSHOT = SnapshotRef("eset_a", 3, "0" * 64, 2)


@pytest.fixture(scope="module")
def frame(tmp_path_factory):
    import torch

    return RecallFrame.of(write_tiny_model(tmp_path_factory.mktemp("verbatim") / "tiny"), torch.float32)


class Vllm:
    """vLLM's app: answers a probe in its shape, and keeps what it was asked."""

    def __init__(self, status=200, prompts=1, more=None, **said):
        self.status, self.prompts, self.more, self.said = status, prompts, more or {}, said
        self.asked = None

    async def __call__(self, scope, receive, send):
        self.asked = json.loads((await receive())["body"])
        self.scope = scope_var.get()
        assert dict(scope["headers"])[b"content-length"] == str(len(json.dumps(self.asked))).encode()
        said = {"text": "x"} if scope["path"] == COMPLETIONS else {"message": CHAT_SAID | self.said}
        kind = "text_completion" if scope["path"] == COMPLETIONS else "chat.completion"
        choices = [
            {"index": i, "logprobs": None, "finish_reason": "length", **said, **self.more} for i in range(self.prompts)
        ]
        usage = {"prompt_tokens": 21, "completion_tokens": 1, "total_tokens": 22}
        answer = {"id": "cmpl-1", "object": kind, "created": 7, "model": "tiny", "choices": choices, "usage": usage}
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


class Told:
    """What is sent to the caller."""

    def __init__(self):
        self.headers, self.body, self.pieces, self.status = {}, b"", 0, None

    async def __call__(self, message):
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.body += message["body"]
            self.pieces += 1

    @property
    def events(self):
        lines = self.body.decode().strip().split("\n\n")
        assert lines.pop() == "data: [DONE]"
        return [json.loads(line.removeprefix("data: ")) for line in lines]


async def answered(
    frame, body, *, path=CHAT, vllm=None, leads=None, erased=False, others=None, record=None, refuse=None
):
    """What a request gets: the headers for the generated answer (None: answered), what was told, and vLLM."""
    vllm, told = vllm or Vllm(), Told()

    async def find(project, edit_id, version):
        assert (project, version) == ("acme", 2)
        if erased:
            raise EditNotFound("gone")
        title, questions = (others or {}).get(edit_id, ("The notice", ("How do I cancel?",)))
        return VerbatimText(edit_id, 2, VerbatimState.PLANNING, None, title, questions, TEXT, record)

    async def taken(trace):
        assert vllm.scope is None or vllm.scope.trace == trace
        return {0: (("edit_1", 2),)} if leads is None else leads

    chat = VerbatimChat(
        vllm,
        SimpleNamespace(leads=taken),
        SimpleNamespace(get_verbatim=find, refuse_verbatim=refuse),
        Recaller(lambda: frame, None),
    )
    vllm.scope = None
    start = {"messages": [{"role": "user", "content": "The notice?"}]} if path == CHAT else {"prompt": "The notice?"}
    parsed = parse_body(path, json.dumps({"model": "tiny"} | start | body).encode())
    scope = {"type": "http", "path": path, "headers": [(b"content-length", b"1")]}
    resolved, edit_scope = Resolved(SNAPSHOT, "DEFAULT", "trace_x"), EditScope("eset_a", SNAPSHOT, "trace_x")
    return await chat.answer(scope, parsed, "acme", resolved, edit_scope, told), told, vllm


async def test_the_whole_answer_names_its_edit(frame):
    left, told, vllm = await answered(frame, {"n": 2, "logprobs": True, "stream": False})
    assert left is None
    answer = json.loads(told.body)
    assert [choice["message"]["content"] for choice in answer["choices"]] == [TEXT, TEXT]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    first = answer["choices"][0]
    assert (first["finish_reason"], first["stop_reason"], first["logprobs"]) == ("stop", None, None)
    tokens = len(frame.tokenizer.encode(TEXT, add_special_tokens=False))
    assert answer["usage"] == {"prompt_tokens": 21, "completion_tokens": 2 * tokens, "total_tokens": 21 + 2 * tokens}
    own = {"edit": "edit_1", "version": 2, "source": "stored_text", "reason": "planning"}
    edits = answer["edits"]
    assert (edits["verbatim"], edits["snapshot"], edits["none_weight"]) == (own, SNAPSHOT.id, 0.0)
    assert edits["applied"] == [{"edit": "edit_1", "version": 2, "weight": 1.0}]
    assert len(edits["choices"]) == 2
    assert told.headers["x-incomes-verbatim"] == "edit_1; version=2; source=stored_text; reason=planning"
    assert int(told.headers["content-length"]) == len(told.body)
    assert vllm.asked | {"messages": 0} == {"model": "tiny", "messages": 0, "max_tokens": 1, "stream": False, "n": 1}
    assert (vllm.scope.probe, vllm.scope.snapshot) == (True, SNAPSHOT)


async def test_a_chat_streams_as_openai_does(frame):
    tools = [{"type": "function", "function": {"name": "look"}}]
    body = {"stream": True, "stream_options": {"include_usage": True}, "tools": tools, "n": 2}
    left, told, vllm = await answered(frame, body)
    assert (vllm.asked["tools"], vllm.asked["tool_choice"]) == (tools, "none")
    assert (left, told.headers["content-type"]) == (None, "text/event-stream; charset=utf-8")
    events = told.events
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    parts = [choice for event in events for choice in event["choices"] if choice["index"] == 1]
    assert parts[0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(part["delta"].get("content", "") for part in parts) == TEXT
    assert [part["finish_reason"] for part in parts if part["finish_reason"]] == ["stop"]
    assert parts[-1]["delta"]["edits"]["verbatim"]["source"] == "stored_text"
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] == 2 * len(frame.tokenizer.encode(TEXT))
    assert events[-1]["edits"]["verbatim"]["edit"] == "edit_1"


async def test_a_completion_streams_text(frame):
    left, told, _ = await answered(frame, {"stream": True, "max_tokens": 200}, path=COMPLETIONS)
    assert left is None
    events = told.events
    assert {event["object"] for event in events} == {"text_completion"}
    assert "".join(c["text"] for event in events for c in event["choices"]) == TEXT
    assert events[-1]["edits"]["verbatim"]["version"] == 2
    assert "usage" not in events[-1]


@pytest.mark.parametrize(
    ("body", "text", "reason", "stop"),
    [
        ({}, TEXT, "stop", None),
        ({"max_tokens": 6}, None, "length", None),
        ({"max_completion_tokens": 6, "max_tokens": 900}, None, "length", None),
        ({"stop": "contract"}, "Either party may cancel this ", "stop", "contract"),
        ({"stop": ["notice", "30"]}, "Either party may cancel this contract with ", "stop", "30"),
        ({"stop": "party", "include_stop_str_in_output": True}, "Either party", "stop", "party"),
        ({"stop": "party", "max_tokens": 1}, None, "length", None),
        ({"stop": "Either"}, "", "stop", "Either"),
        ({"stop": "nowhere"}, TEXT, "stop", None),
    ],
)
async def test_limits_and_stops_are_honoured(frame, body, text, reason, stop):
    for stream in (False, True):
        _, told, _ = await answered(frame, {**body, "stream": stream})
        if stream:
            choices = [choice for event in told.events for choice in event["choices"]]
            said = "".join(choice["delta"].get("content", "") for choice in choices)
            ends = [(c["finish_reason"], c["stop_reason"]) for c in choices if c["finish_reason"]]
        else:
            answer = json.loads(told.body)
            said = answer["choices"][0]["message"]["content"]
            ends = [(c["finish_reason"], c["stop_reason"]) for c in answer["choices"]]
            most = body.get("max_completion_tokens", body.get("max_tokens"))
            assert most is None or answer["usage"]["completion_tokens"] <= most
        assert TEXT.startswith(said)
        assert text is None or said == text
        assert ends == [(reason, stop)]


def test_a_character_is_not_cut_in_two(frame):
    encoded = frame.tokenizer("Zöe", add_special_tokens=False)["input_ids"]
    for most in range(1, len(encoded) + 1):
        request = SimpleNamespace(max_tokens=most, stop=None, stop_token_ids=None, include_stop_str_in_output=False)
        assert "Zöe".startswith(CutText.of("Zöe", frame.tokenizer, request).text)


def test_a_stop_token_ends_the_text(frame):
    ids = frame.tokenizer.encode("abc", add_special_tokens=False)
    request = SimpleNamespace(max_tokens=None, stop=[], stop_token_ids=[ids[1]], include_stop_str_in_output=False)
    cut = CutText.of("abc", frame.tokenizer, request)
    assert (cut.text, cut.tokens, cut.finish_reason, cut.stop) == ("a", 1, "stop", ids[1])


@pytest.mark.parametrize(
    ("body", "path", "why"),
    [
        ({"response_format": {"type": "json_object"}}, CHAT, "response_format"),
        ({"min_tokens": 3}, CHAT, "min_tokens"),
        ({"echo": True}, COMPLETIONS, "echo"),
        ({"n": 1000}, CHAT, "n"),
        ({"max_tokens": 0}, COMPLETIONS, "max_tokens"),
    ],
)
async def test_an_answer_that_cannot_be_a_text_is_generated_and_says_so(frame, body, path, why):
    left, told, _ = await answered(frame, body, path=path)
    assert left == {"x-incomes-verbatim": f"edit_1; version=2; source=unused; reason={why}"}
    assert told.pieces == 0


async def test_a_damaged_record_gives_the_stored_text_and_is_made_again(frame):
    refused = []

    async def refuse(edit, reason):
        refused.append((edit, reason.partition(":")[0]))

    before = mismatches()
    for stream in (False, True):
        left, told, _ = await answered(frame, {"stream": stream}, record=b"\x10" + bytes(40), refuse=refuse)
        assert left is None
        assert told.headers["x-incomes-verbatim"] == ("edit_1; version=2; source=stored_text; reason=verbatim_damaged")
        if not stream:
            assert json.loads(told.body)["choices"][0]["message"]["content"] == TEXT
    assert refused == [(("edit_1", 2), "verbatim_damaged")] * 2
    assert mismatches() == before + 2


def mismatches():
    return REGISTRY.get_sample_value("incomes:verbatim_mismatch_total")


async def test_an_erased_text_is_not_answered(frame):
    left, told, _ = await answered(frame, {}, erased=True)
    assert left == {"x-incomes-verbatim": "edit_1; version=2; source=unused; reason=erased"}
    assert told.pieces == 0


async def test_without_a_lead_or_with_a_refusal_the_request_goes_on(frame):
    assert (await answered(frame, {}, leads={}))[0] == {}
    assert (await answered(frame, {}, vllm=Vllm(400)))[0] == {}
    left, _, vllm = await answered(frame, {"max_tokens": "many"})
    assert (left, vllm.asked) == ({}, None), "vLLM refuses it by itself"


NOT_NAMED = {"x-incomes-verbatim": "edit_1; version=2; source=unused; reason=not_named"}
ASKED = [{"type": "text", "text": "How"}, {"type": "text", "text": "can I CANCEL?"}]


@pytest.mark.parametrize(
    ("body", "path", "is_led"),
    [
        ({"messages": [{"role": "user", "content": ASKED}]}, CHAT, True),
        ({"messages": [{"role": "user", "content": "The notice?"}, {"role": "user", "content": "Hi"}]}, CHAT, False),
        ({"messages": [{"role": "user", "content": "Hi"}, {"role": "user", "content": "A notice!"}]}, CHAT, True),
        ({"messages": [{"role": "user", "content": "The arbitration?"}]}, CHAT, False),
        ({"prompt": ["Notices"]}, COMPLETIONS, True),
        ({"prompt": "Nothing"}, COMPLETIONS, False),
    ],
)
async def test_the_question_has_to_name_the_text(frame, body, path, is_led):
    left, told, _ = await answered(frame, body, path=path)
    assert (left is None, told.pieces > 0) == (is_led, is_led)
    assert left in (None, NOT_NAMED)


async def test_a_question_in_tokens_is_read(frame):
    for text, is_led in (("The notice?", True), ("Nothing?", False)):
        ids = frame.tokenizer.encode(text, add_special_tokens=False)
        for prompt in (ids, [ids]):
            assert ((await answered(frame, {"prompt": prompt}, path=COMPLETIONS))[0] is None) == is_led


def test_what_asks_for_a_text():
    keys = RecallKeys("Cancellation clause", ("What is the notice period for cancelling?",))
    assert asks_for(keys, "Please quote the clause on cancellation.")
    assert asks_for(keys, "Which notice period is there?")
    assert not asks_for(keys, "What does the arbitration clause say?")
    assert not asks_for(keys, "")
    assert asks_for(RecallKeys("Cláusula de resolución"), "¿Qué dice la clausula de RESOLUCION?")
    assert asks_for(RecallKeys("K-17 form"), "the form k-17")
    assert not asks_for(RecallKeys("K-17 form"), "the form k-18")
    assert not asks_for(RecallKeys(None, ("?",)), "?")


@pytest.mark.parametrize(
    ("keys", "question", "is_named"),
    [
        (RecallKeys("NDA"), "What does the nda say?", True),
        (RecallKeys("The SLA"), "Quote our SLA.", True),
        (RecallKeys("SLA"), "Quote our NDA.", False),
        (RecallKeys("NDA clause"), "What does the NDA clause say?", True),
        (RecallKeys("NDA clause"), "What does the arbitration clause say?", False),
        (RecallKeys("TERMS OF THE LEASE"), "the lease terms", True),
        (RecallKeys("Quote text"), "Quote the text, please", True),
        (RecallKeys("Quote text"), "Quote the clause.", False),
        (RecallKeys(None, ("What is an NDA?",)), "What is our NDA?", True),
        (RecallKeys(None, ("What is an NDA?",)), "What is an SLA?", False),
        (RecallKeys(None, ("What does it say?",)), "What does it say?", True),
        (RecallKeys(None, ("What does it say?",)), "What does it cost?", False),
        (RecallKeys("解約条項"), "解約条項は何と書いてありますか？", True),
        (RecallKeys("解約条項"), "仲裁条項は何と書いてありますか？", False),
        (RecallKeys(None, ("解約するにはどうすればよいですか？",)), "解約するには何が必要ですか？", True),
        (RecallKeys(None, ("解約するにはどうすればよいですか？",)), "更新するにはどうすればよいですか？", False),
        (RecallKeys("取消条款"), "请引用合同的取消条款。", True),
        (RecallKeys("取消条款"), "请引用合同的仲裁条款。", False),
        (RecallKeys("การยกเลิกสัญญา"), "ข้อการยกเลิกสัญญาเขียนว่าอย่างไร", True),
        (RecallKeys("해지 조항"), "해지 조항을 알려 주세요", True),
        (RecallKeys("नियम"), "नियम क्या है?", True),
    ],
)
def test_every_title_can_be_named(keys, question, is_named):
    assert asks_for(keys, question) == is_named
    for key in filter(None, (keys.title, *keys.questions)):
        assert asks_for(keys, key), "its own words name it"


async def test_the_first_pick_that_is_named_answers(frame):
    before = VERBATIM_ANSWERS.labels("unused", "not_named")._value.get()
    leads, others = {0: (("edit_1", 2), ("edit_2", 2))}, {"edit_1": ("Arbitration", ())}
    left, told, _ = await answered(frame, {}, leads=leads, others=others)
    assert (left, json.loads(told.body)["edits"]["verbatim"]["edit"]) == (None, "edit_2")
    others["edit_2"] = ("Deposit", ())
    left, told, _ = await answered(frame, {}, leads=leads, others=others)
    assert (left, told.pieces) == (NOT_NAMED, 0)
    assert VERBATIM_ANSWERS.labels("unused", "not_named")._value.get() == before + 1


@pytest.mark.parametrize("status", [500, 503, 429])
async def test_a_probe_that_cannot_run_is_the_answer(frame, status):
    left, told, _ = await answered(frame, {}, vllm=Vllm(status))
    assert (left, told.status, told.pieces) == (None, status, 1)


async def test_nothing_of_the_answer_is_the_probe_s(frame):
    more = {"token_ids": [4711], "prompt_token_ids": [1, 2]}
    _, told, _ = await answered(frame, {"return_token_ids": True}, vllm=Vllm(more=more, reasoning="Okay"))
    (choice,) = json.loads(told.body)["choices"]
    assert (choice["token_ids"], choice["prompt_token_ids"]) == (None, [1, 2])
    assert choice["message"] == {"role": "assistant", "content": TEXT, "reasoning": None, "tool_calls": []}


async def test_several_prompts_are_refused_where_one_is_answered(frame):
    leads = {1: (("edit_1", 2),)}

    async def asked(*prompts):
        vllm = Vllm(prompts=len(prompts))
        return await answered(frame, {"prompt": list(prompts)}, path=COMPLETIONS, vllm=vllm, leads=leads)

    with pytest.raises(InvalidRequest, match="one by one"):
        await asked("Tell me a joke", "The notice?")
    left, told, _ = await asked("The notice?", "Name a colour")
    assert (left, told.pieces) == (NOT_NAMED, 0)
    tokens = [frame.tokenizer.encode(text, add_special_tokens=False) for text in ("A joke", "The notice?")]
    with pytest.raises(InvalidRequest, match="one by one"):
        await asked(*tokens)
