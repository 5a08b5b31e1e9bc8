"""The answer of an import: one entry for each line, in their order, as the schema says."""

from incomes_server.api.admin.import_lines import Line
from incomes_server.api.admin.imports import _render
from incomes_server.api.admin.schemas import ImportResult, WaitFor
from incomes_server.edits.model import Edit, EditProvenance, EditStatus, NewEdit

from incomes_plugin.errors import EditConflict, InvalidValue


def edit(number, status=EditStatus.PENDING, reason=None):
    return Edit(f"edit_{number}", "p", "eset", 1, status, reason, "t", None, {}, 0, 0, None, 3, 0, EditProvenance(), ())


def test_every_line_is_accounted_for():
    new = NewEdit("t", (1,))
    lines = [
        Line(1, "a", edit=new),
        Line(3, 'b "x" \ud83d\ude00'.encode("utf-16", "surrogatepass").decode("utf-16"), edit=new),
        Line(4, None, error=InvalidValue("no text", param="text")),
        Line(7, "d", edit=new),
    ]
    outcomes = {1: edit(1), 3: edit(2), 7: EditConflict("taken", param="external_id")}
    now = [edit(1, EditStatus.READY), edit(2, EditStatus.FAILED, "it is too dull")]
    content = _render("request", lines, outcomes, now, WaitFor.READY, dry_run=False)
    found = ImportResult.model_validate_json(content)
    assert found.request_counts.model_dump() == {"total": 4, "completed": 1, "failed": 3}
    assert [(line.line, line.custom_id, line.edit) for line in found.data] == [
        (1, "a", "edit_1"),
        (3, 'b "x" 😀', "edit_2"),
        (4, None, None),
        (7, "d", None),
    ]
    codes = [line.error and line.error["code"] for line in found.data]
    assert codes == [None, "compression_failed", "invalid_value", "edit_conflict"]
    assert "it is too dull" in found.data[1].error["message"]
    assert [line.status for line in found.data] == [EditStatus.READY, EditStatus.FAILED, None, None]
    assert ImportResult.model_validate_json(found.model_dump_json()) == found


def test_an_import_without_lines():
    found = ImportResult.model_validate_json(_render("r", [], {}, [], WaitFor.ACCEPTED, dry_run=True))
    assert (found.dry_run, found.request_counts.total, found.data, found.reached) == (True, 0, [], WaitFor.ACCEPTED)
