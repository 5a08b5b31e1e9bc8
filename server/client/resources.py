"""The resources of the admin API, each for both clients, with the same methods."""

from __future__ import annotations

from incomes_server.client import calls, import_calls, label_calls
from incomes_server.client.methods import (
    ApiMethod,
    AsyncGroup,
    AsyncLinesMethod,
    AsyncListMethod,
    AsyncMethod,
    Group,
    LinesMethod,
    ListMethod,
)


class Edits(Group):
    """/v1/edits."""

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


class AsyncEdits(AsyncGroup):
    """/v1/edits."""

    add = AsyncMethod(calls.add_edit)
    get = AsyncMethod(calls.get_edit)
    list = AsyncListMethod(calls.list_edits)
    replace = AsyncMethod(calls.replace_edit)
    retire = AsyncMethod(calls.retire_edit)
    restore = AsyncMethod(calls.restore_edit)
    erase = AsyncMethod(calls.erase_edit)
    disable = AsyncMethod(calls.disable_edit)
    enable = AsyncMethod(calls.enable_edit)
    approve = AsyncMethod(calls.approve_edit)
    import_lines = AsyncMethod(calls.import_edits)
    export = AsyncLinesMethod(import_calls.export_edits)


class EditSets(Group):
    """/v1/edit_sets."""

    create = ApiMethod(calls.create_edit_set)
    get = ApiMethod(calls.get_edit_set)
    list = ListMethod(calls.list_edit_sets)
    delete = ApiMethod(calls.delete_edit_set)
    disable = ApiMethod(calls.disable_edit_set)
    enable = ApiMethod(calls.enable_edit_set)
    digest = ApiMethod(import_calls.digest_edit_set)


class AsyncEditSets(AsyncGroup):
    """/v1/edit_sets."""

    create = AsyncMethod(calls.create_edit_set)
    get = AsyncMethod(calls.get_edit_set)
    list = AsyncListMethod(calls.list_edit_sets)
    delete = AsyncMethod(calls.delete_edit_set)
    disable = AsyncMethod(calls.disable_edit_set)
    enable = AsyncMethod(calls.enable_edit_set)
    digest = AsyncMethod(import_calls.digest_edit_set)


class Files(Group):
    """/v1/files."""

    upload = ApiMethod(import_calls.upload_file)
    get = ApiMethod(import_calls.get_file)
    list = ListMethod(import_calls.list_files)
    delete = ApiMethod(import_calls.delete_file)
    content = LinesMethod(import_calls.file_content)


class AsyncFiles(AsyncGroup):
    """/v1/files."""

    upload = AsyncMethod(import_calls.upload_file)
    get = AsyncMethod(import_calls.get_file)
    list = AsyncListMethod(import_calls.list_files)
    delete = AsyncMethod(import_calls.delete_file)
    content = AsyncLinesMethod(import_calls.file_content)


class Batches(Group):
    """/v1/batches."""

    create = ApiMethod(import_calls.create_batch)
    get = ApiMethod(import_calls.get_batch)
    list = ListMethod(import_calls.list_batches)
    cancel = ApiMethod(import_calls.cancel_batch)


class AsyncBatches(AsyncGroup):
    """/v1/batches."""

    create = AsyncMethod(import_calls.create_batch)
    get = AsyncMethod(import_calls.get_batch)
    list = AsyncListMethod(import_calls.list_batches)
    cancel = AsyncMethod(import_calls.cancel_batch)


class Labels(Group):
    """/v1/edit_sets/{edit_set}/labels."""

    list = ApiMethod(label_calls.list_labels)
    get = ApiMethod(label_calls.get_label)
    move = ApiMethod(label_calls.move_label)
    delete = ApiMethod(label_calls.delete_label)


class AsyncLabels(AsyncGroup):
    """/v1/edit_sets/{edit_set}/labels."""

    list = AsyncMethod(label_calls.list_labels)
    get = AsyncMethod(label_calls.get_label)
    move = AsyncMethod(label_calls.move_label)
    delete = AsyncMethod(label_calls.delete_label)


class Snapshots(Group):
    """/v1/snapshots, and the difference of two."""

    list = ListMethod(label_calls.list_snapshots)
    get = ApiMethod(label_calls.get_snapshot)
    diff = ApiMethod(label_calls.diff_snapshots)


class AsyncSnapshots(AsyncGroup):
    """/v1/snapshots, and the difference of two."""

    list = AsyncListMethod(label_calls.list_snapshots)
    get = AsyncMethod(label_calls.get_snapshot)
    diff = AsyncMethod(label_calls.diff_snapshots)


class Replicas(Group):
    """/v1/replicas and /v1/workers."""

    list = ApiMethod(calls.list_replicas)
    workers = ApiMethod(calls.list_workers)


class AsyncReplicas(AsyncGroup):
    """/v1/replicas and /v1/workers."""

    list = AsyncMethod(calls.list_replicas)
    workers = AsyncMethod(calls.list_workers)
