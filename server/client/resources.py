"""The resources of the admin API. Each has its methods once, and two classes: of `Client` and of `AsyncClient`."""

from __future__ import annotations

from incomes_server.client import calls, import_calls, label_calls, operation_calls
from incomes_server.client.methods import ApiMethod, AsyncGroup, Group, LinesMethod, ListMethod


class _Edits:
    add = ApiMethod(calls.add_edit)
    get = ApiMethod(calls.get_edit)
    list = ListMethod(calls.list_edits)
    replace = ApiMethod(calls.replace_edit)
    retire = ApiMethod(calls.retire_edit)
    restore = ApiMethod(calls.restore_edit)
    erase = ApiMethod(calls.erase_edit)
    disable = ApiMethod(calls.disable_edit)
    enable = ApiMethod(calls.enable_edit)
    approve = ApiMethod(calls.approve_edit)
    import_lines = ApiMethod(calls.import_edits)
    export = LinesMethod(import_calls.export_edits)
    validate = ApiMethod(operation_calls.validate_edit)
    preview = ApiMethod(operation_calls.preview_edit)
    recall = ApiMethod(operation_calls.recall_edit)


class Edits(_Edits, Group):
    """/v1/edits."""


class AsyncEdits(_Edits, AsyncGroup):
    """/v1/edits."""


class _EditSets:
    create = ApiMethod(calls.create_edit_set)
    get = ApiMethod(calls.get_edit_set)
    list = ListMethod(calls.list_edit_sets)
    delete = ApiMethod(calls.delete_edit_set)
    disable = ApiMethod(calls.disable_edit_set)
    enable = ApiMethod(calls.enable_edit_set)
    digest = ApiMethod(import_calls.digest_edit_set)
    test_suite = ApiMethod(operation_calls.get_test_suite)
    set_test_suite = ApiMethod(operation_calls.set_test_suite)


class EditSets(_EditSets, Group):
    """/v1/edit_sets."""


class AsyncEditSets(_EditSets, AsyncGroup):
    """/v1/edit_sets."""


class _Files:
    upload = ApiMethod(import_calls.upload_file)
    get = ApiMethod(import_calls.get_file)
    list = ListMethod(import_calls.list_files)
    delete = ApiMethod(import_calls.delete_file)
    content = LinesMethod(import_calls.file_content)


class Files(_Files, Group):
    """/v1/files."""


class AsyncFiles(_Files, AsyncGroup):
    """/v1/files."""


class _Batches:
    create = ApiMethod(import_calls.create_batch)
    get = ApiMethod(import_calls.get_batch)
    list = ListMethod(import_calls.list_batches)
    cancel = ApiMethod(import_calls.cancel_batch)


class Batches(_Batches, Group):
    """/v1/batches."""


class AsyncBatches(_Batches, AsyncGroup):
    """/v1/batches."""


class _Labels:
    list = ApiMethod(label_calls.list_labels)
    get = ApiMethod(label_calls.get_label)
    move = ApiMethod(label_calls.move_label)
    delete = ApiMethod(label_calls.delete_label)


class Labels(_Labels, Group):
    """/v1/edit_sets/{edit_set}/labels."""


class AsyncLabels(_Labels, AsyncGroup):
    """/v1/edit_sets/{edit_set}/labels."""


class _Snapshots:
    list = ListMethod(label_calls.list_snapshots)
    get = ApiMethod(label_calls.get_snapshot)
    diff = ApiMethod(label_calls.diff_snapshots)


class Snapshots(_Snapshots, Group):
    """/v1/snapshots, and the difference of two."""


class AsyncSnapshots(_Snapshots, AsyncGroup):
    """/v1/snapshots, and the difference of two."""


class _Replicas:
    list = ApiMethod(calls.list_replicas)
    workers = ApiMethod(calls.list_workers)


class Replicas(_Replicas, Group):
    """/v1/replicas and /v1/workers."""


class AsyncReplicas(_Replicas, AsyncGroup):
    """/v1/replicas and /v1/workers."""


class _EvalRuns:
    create = ApiMethod(operation_calls.create_eval_run)
    get = ApiMethod(operation_calls.get_eval_run)
    list = ListMethod(operation_calls.list_eval_runs)


class EvalRuns(_EvalRuns, Group):
    """/v1/eval_runs."""


class AsyncEvalRuns(_EvalRuns, AsyncGroup):
    """/v1/eval_runs."""


class _ServerSwitch:
    get = ApiMethod(operation_calls.get_server)
    disable = ApiMethod(operation_calls.disable_server)
    enable = ApiMethod(operation_calls.enable_server)


class ServerSwitch(_ServerSwitch, Group):
    """/v1/server: the switch of all edits."""


class AsyncServerSwitch(_ServerSwitch, AsyncGroup):
    """/v1/server: the switch of all edits."""


class _Projects:
    create = ApiMethod(operation_calls.create_project)
    list = ListMethod(operation_calls.list_projects)
    limits = ApiMethod(operation_calls.get_limits)
    set_limits = ApiMethod(operation_calls.set_limits)
    data_key = ApiMethod(operation_calls.get_data_key)
    rotate_data_key = ApiMethod(operation_calls.rotate_data_key)
    erase_data_key = ApiMethod(operation_calls.erase_data_key)


class Projects(_Projects, Group):
    """/v1/projects, and their data keys."""


class AsyncProjects(_Projects, AsyncGroup):
    """/v1/projects, and their data keys."""


class _Keys:
    create = ApiMethod(operation_calls.create_key)
    list = ListMethod(operation_calls.list_keys)
    rotate = ApiMethod(operation_calls.rotate_key)
    revoke = ApiMethod(operation_calls.revoke_key)


class Keys(_Keys, Group):
    """/v1/api_keys."""


class AsyncKeys(_Keys, AsyncGroup):
    """/v1/api_keys."""


class _Audit:
    list = ListMethod(operation_calls.list_audit_events)
    export = LinesMethod(operation_calls.export_audit_events)


class Audit(_Audit, Group):
    """/v1/audit_events."""


class AsyncAudit(_Audit, AsyncGroup):
    """/v1/audit_events."""
