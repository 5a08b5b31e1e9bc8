"""What a caller may say of an edit's origin, and how it comes back."""

import pytest
from incomes_server.api.admin.provenance import EditSource
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
    ],
)
def test_what_is_wrong_is_refused_by_name(field, value):
    with pytest.raises(ValidationError) as caught:
        CreateEdit.model_validate(GOOD | {field: value})
    assert caught.value.errors()[0]["loc"][0] == field


def test_only_a_new_edit_supersedes():
    with pytest.raises(ValidationError, match="supersedes"):
        EditContent.model_validate({"text": "t", "supersedes": ["edit_a"]})
