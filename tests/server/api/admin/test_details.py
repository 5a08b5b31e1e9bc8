"""What a caller may say of an edit beside its text, and how it comes back."""

import pytest
from incomes_server.api.admin.details import EditSource
from incomes_server.api.admin.schemas import CreateEdit, EditContent
from incomes_server.edits.model import EditProvenance
from pydantic import ValidationError

GOOD = {"text": "t", "source": {"url": "https://erp.example/z9", "document_id": "erp 9"}, "author": "kim"}


def test_what_is_said_reaches_the_store_and_comes_back():
    said = CreateEdit.model_validate(GOOD | {"justification": "two\nlines", "supersedes": ["edit_a"]})
    assert said.provenance == EditProvenance("https://erp.example/z9", "erp 9", "kim", "two\nlines")
    assert EditSource.of(said.provenance) == said.source
    assert EditContent(text="t").provenance == EditProvenance()
    assert EditSource.of(EditProvenance(author="kim")) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("source", {}),
        ("source", {"uri": "https://a.example"}),
        ("source", {"url": "erp.example/z9"}),
        ("source", {"url": "javascript:alert(1)"}),
        ("source", {"url": "https:///z9"}),
        ("source", {"url": "https://kim:secret@erp.example"}),
        ("source", {"url": "https://erp.example/a b"}),
        ("source", {"url": "https://erp.example/" + "a" * 2048}),
        ("source", {"url": "https://[broken"}),
        ("source", {"document_id": ""}),
        ("source", {"document_id": " padded"}),
        ("author", "a\nb"),
        ("author", "a" * 257),
        ("justification", ""),
        ("supersedes", ["edit_a"] * 33),
        ("supersedes", [""]),
        ("effective_from", "2026-11-29 17:20"),
        ("effective_from", 1_764_436_800),
        ("effective_from", "1999-12-31T23:59:59Z"),
        ("effective_from", "2100-01-01T00:00:01Z"),
        ("expires_at", "2026-11-29T17:20:00"),
        ("expires_at", "2020-01-01T00:00:00Z"),
        ("expires_at", "2099-02-30T00:00:00Z"),
        ("expires_at", "soon"),
    ],
)
def test_what_is_wrong_is_refused_by_name(field, value):
    with pytest.raises(ValidationError) as caught:
        CreateEdit.model_validate(GOOD | {field: value})
    assert caught.value.errors()[0]["loc"][0] == field


def test_only_a_new_edit_supersedes():
    with pytest.raises(ValidationError, match="supersedes"):
        EditContent.model_validate({"text": "t", "supersedes": ["edit_a"]})


def test_times_have_an_order_and_may_begin_in_the_past():
    said = CreateEdit.model_validate(
        GOOD | {"effective_from": "2020-01-01T00:00:00+02:00", "expires_at": "2099-01-01T00:00:00Z"}
    )
    assert (said.effective_from, said.expires_at) == (1577829600, 4070908800)
    for start in ("2099-01-01T00:00:00Z", "2099-01-01T00:00:01Z"):
        with pytest.raises(ValidationError, match="before `expires_at`"):
            CreateEdit.model_validate(GOOD | {"effective_from": start, "expires_at": "2099-01-01T00:00:00Z"})
