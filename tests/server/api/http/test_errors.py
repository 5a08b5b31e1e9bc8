"""One map from errors to HTTP, complete and in OpenAI's envelope."""

import pytest
from incomes_server.api.http.errors import error_response, first_validation_error, status_of

from incomes_plugin import errors


def leaves(cls=errors.IncomesError):
    subs = cls.__subclasses__()
    return [error for sub in subs for error in leaves(sub)] if subs else [cls]


EXPECTED = {
    "invalid_value": 400,
    "unknown_parameter": 400,
    "edit_too_long": 413,
    "body_too_large": 413,
    "request_timeout": 408,
    "idempotency_key_reuse": 422,
    "route_not_supported": 404,
    "adapter_missing": 400,
    "adapter_mismatch": 400,
    "invalid_api_key": 401,
    "permission_denied": 403,
    "label_not_found": 404,
    "eval_run_not_found": 404,
    "eval_required": 409,
    "project_not_found": 404,
    "api_key_not_found": 404,
    "project_exists": 409,
    "replica_name_taken": 409,
    "not_encrypted": 409,
    "edit_not_found": 404,
    "edit_set_not_found": 404,
    "snapshot_not_found": 404,
    "model_not_found": 404,
    "route_not_found": 404,
    "method_not_allowed": 405,
    "edit_conflict": 409,
    "conflicting_edit": 409,
    "edit_set_exists": 409,
    "edit_set_labelled": 409,
    "etag_mismatch": 412,
    "file_in_use": 409,
    "file_not_found": 404,
    "batch_not_found": 404,
    "snapshot_retired": 409,
    "snapshot_empty": 409,
    "edits_disabled": 409,
    "queue_full": 429,
    "quota_exceeded": 429,
    "rate_limit_exceeded": 429,
    "pool_full": 503,
    "not_ready": 503,
    "gist_storage_failed": 503,
    "engine_lost": 503,
    "base_model_unavailable": 503,
    "gist_format_error": 500,
    "gist_model_mismatch": 422,
    "verbatim_damaged": 500,
    "verbatim_stale": 500,
    "verbatim_mismatch": 500,
    "compression_failed": 500,
    "edit_selection_failed": 500,
    "unsupported_engine": 503,
}


def test_every_error_has_the_documented_status():
    assert {cls.code: status_of(cls("x")) for cls in leaves()} == EXPECTED


@pytest.mark.parametrize("error", [errors.QueueFull("x", retry_after_s=7), errors.NotReady("x")])
def test_retry_after(error):
    assert error_response(error).headers["retry-after"] == ("7" if error.code == "queue_full" else "1")


def test_an_unknown_field_is_named_before_a_missing_one():
    missing = {"type": "missing", "loc": ("body", "text"), "msg": "Field required"}
    extra = {"type": "extra_forbidden", "loc": ("body", "txt"), "msg": "Extra inputs are not permitted"}
    error = first_validation_error([missing, extra])
    assert (error.code, error.param) == ("unknown_parameter", "txt")
    assert first_validation_error([missing]).param == "text"
