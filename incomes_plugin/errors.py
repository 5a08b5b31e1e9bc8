"""Every error the product raises on purpose. HTTP status lives in `server/api/http/errors.py` alone.

IncomesError
├── InvalidRequest            the caller can mend it by changing the request
│   ├── InvalidValue          invalid_value
│   ├── UnknownParameter      unknown_parameter
│   ├── EditTooLong           edit_too_long
│   ├── BodyTooLarge          body_too_large
│   ├── RequestTimeout        request_timeout
│   ├── RouteNotSupported     route_not_supported
│   ├── IdempotencyKeyReuse   idempotency_key_reuse
│   ├── AdapterMissing        adapter_missing
│   └── AdapterMismatch       adapter_mismatch
├── AuthError
│   └── InvalidApiKey         invalid_api_key
├── PermissionDenied          permission_denied
├── NotFound
│   ├── EditNotFound          edit_not_found
│   ├── EditSetNotFound       edit_set_not_found
│   ├── SnapshotNotFound      snapshot_not_found
│   ├── LabelNotFound         label_not_found
│   ├── StoredFileNotFound    file_not_found
│   ├── BatchNotFound         batch_not_found
│   ├── EvalRunNotFound       eval_run_not_found
│   ├── ModelNotFound         model_not_found
│   ├── ProjectNotFound       project_not_found
│   ├── ApiKeyNotFound        api_key_not_found
│   └── RouteNotFound         route_not_found
├── MethodNotAllowed          method_not_allowed
├── Conflict
│   ├── EditConflict          edit_conflict
│   ├── EditSetExists         edit_set_exists
│   ├── EditSetLabelled       edit_set_labelled
│   ├── EvalRequired          eval_required
│   ├── EtagMismatch          etag_mismatch
│   ├── ProjectExists         project_exists
│   ├── ReplicaNameTaken      replica_name_taken
│   ├── NotEncrypted          not_encrypted
│   ├── FileInUse             file_in_use
│   ├── EditsDisabled         edits_disabled
│   ├── SnapshotRetired       snapshot_retired
│   └── SnapshotEmpty         snapshot_empty
├── Overloaded
│   ├── QueueFull             queue_full
│   ├── QuotaExceeded         quota_exceeded
│   ├── RateLimited           rate_limit_exceeded
│   └── PoolFull              pool_full
├── Unavailable
│   ├── NotReady              not_ready
│   ├── GistStorageFailed     gist_storage_failed
│   ├── EngineLost            engine_lost
│   └── BaseModelUnavailable  base_model_unavailable
├── GistError
│   ├── GistFormatError       gist_format_error
│   └── FingerprintMismatch   gist_model_mismatch
├── VerbatimError             verbatim_error
│   ├── VerbatimDamaged       verbatim_damaged
│   ├── VerbatimStale         verbatim_stale
│   └── VerbatimMismatch      verbatim_mismatch
├── CompressionFailed         compression_failed
├── SelectionFailed           edit_selection_failed
└── UnsupportedEngine         unsupported_engine
"""

from __future__ import annotations

from typing import ClassVar


class IncomesError(Exception):
    """Base of all errors. `code` is the stable machine name, `param` the request field at fault."""

    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class InvalidRequest(IncomesError):
    """The request is wrong; sending it again unchanged cannot succeed."""

    code = "invalid_request"


class InvalidValue(InvalidRequest):
    """A field has a value outside its limits."""

    code = "invalid_value"


class UnknownParameter(InvalidRequest):
    """A field or query parameter that no route knows: misspelt fields are never ignored."""

    code = "unknown_parameter"


class EditTooLong(InvalidRequest):
    """The edit text has more tokens than the adapter allows."""

    code = "edit_too_long"


class BodyTooLarge(InvalidRequest):
    """The request body is larger than the server reads."""

    code = "body_too_large"


class RequestTimeout(InvalidRequest):
    """The request body did not arrive in time."""

    code = "request_timeout"


class RouteNotSupported(InvalidRequest):
    """A generation route of the engine on which edits are not proven: refused rather than answered without them."""

    code = "route_not_supported"


class IdempotencyKeyReuse(InvalidRequest):
    """The same Idempotency-Key came with another body."""

    code = "idempotency_key_reuse"


class AdapterMissing(InvalidRequest):
    """The base that should be served has no edit adapter."""

    code = "adapter_missing"


class AdapterMismatch(InvalidRequest):
    """The edit adapter was made for another base."""

    code = "adapter_mismatch"


class AuthError(IncomesError):
    """The credential does not allow the request."""

    code = "auth_error"


class InvalidApiKey(AuthError):
    """No key, or a key the server does not know."""

    code = "invalid_api_key"


class PermissionDenied(IncomesError):
    """The key is good, and has not the scope that the route needs."""

    code = "permission_denied"


class NotFound(IncomesError):
    """The named thing does not exist for this project (other projects' ids look the same)."""

    code = "not_found"


class EditNotFound(NotFound):
    """No such edit in the project."""

    code = "edit_not_found"


class EditSetNotFound(NotFound):
    """No such edit set in the project."""

    code = "edit_set_not_found"


class SnapshotNotFound(NotFound):
    """No such snapshot of the edit set."""

    code = "snapshot_not_found"


class EvalRunNotFound(NotFound):
    """The project has no such evaluation run."""

    code = "eval_run_not_found"


class LabelNotFound(NotFound):
    """The edit set has no such label."""

    code = "label_not_found"


class StoredFileNotFound(NotFound):
    """No such file in the project, or its content is gone."""

    code = "file_not_found"


class BatchNotFound(NotFound):
    """No such import in the project."""

    code = "batch_not_found"


class ModelNotFound(NotFound):
    """The server serves no model of that name."""

    code = "model_not_found"


class RouteNotFound(NotFound):
    """Neither this server nor vLLM has such a route."""

    code = "route_not_found"


class MethodNotAllowed(IncomesError):
    """The route has other methods."""

    code = "method_not_allowed"


class Conflict(IncomesError):
    """The request contradicts the present state."""

    code = "conflict"


class EvalRequired(Conflict):
    """The edit set's labels move only to states whose last evaluation run passed."""

    code = "eval_required"


class EditConflict(Conflict):
    """The edit is not in a state that allows the operation."""

    code = "edit_conflict"


class ConflictingEdit(Conflict):
    """The edit contradicts another one of its set, or says the same, and was to be refused then."""

    code = "conflicting_edit"


class ProjectNotFound(NotFound):
    """No such project, or none that the caller may act for."""

    code = "project_not_found"


class ApiKeyNotFound(NotFound):
    """The project has no such key, or it works no longer."""

    code = "api_key_not_found"


class ProjectExists(Conflict):
    """A project of that name exists already."""

    code = "project_exists"


class ReplicaNameTaken(Conflict):
    """Another engine of the cluster goes by that name."""

    code = "replica_name_taken"


class NotEncrypted(Conflict):
    """The edit store is not encrypted: there is no data key to rotate or to erase."""

    code = "not_encrypted"


class EditSetLabelled(Conflict):
    """The edit set has labels, by which requests name its states: it cannot be deleted in passing."""

    code = "edit_set_labelled"


class EditSetExists(Conflict):
    """An edit set of that name exists already."""

    code = "edit_set_exists"


class EtagMismatch(Conflict):
    """What the write is about has another version than `If-Match` names: somebody else was faster."""

    code = "etag_mismatch"


class FileInUse(Conflict):
    """The file is being imported."""

    code = "file_in_use"


class EditsDisabled(Conflict):
    """The request cannot be answered without edits, and these are switched off."""

    code = "edits_disabled"


class SnapshotRetired(Conflict):
    """The snapshot existed, and the engine holds it no longer."""

    code = "snapshot_retired"


class SnapshotEmpty(Conflict):
    """The request requires edits, and the snapshot has none."""

    code = "snapshot_empty"


class Overloaded(IncomesError):
    """A bounded resource is full; the same request may succeed later."""

    code = "overloaded"

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: int = 1) -> None:
        super().__init__(message, param=param)
        self.retry_after_s = retry_after_s


class QueueFull(Overloaded):
    """The compression queue is full."""

    code = "queue_full"


class QuotaExceeded(Overloaded):
    """The project has reached one of its quotas; the message names what it uses and the limit."""

    code = "quota_exceeded"


class RateLimited(Overloaded):
    """The project has sent as many requests in a minute as it may."""

    code = "rate_limit_exceeded"


class PoolFull(Overloaded):
    """The engine's gist pool has no room for the gists of a change."""

    code = "pool_full"


class Unavailable(IncomesError):
    """The server cannot answer now."""

    code = "unavailable"


class NotReady(Unavailable):
    """A start-up stage or the canary has not passed."""

    code = "not_ready"


class GistStorageFailed(Unavailable):
    """The object storage of the gists does not answer, or an object is missing or was changed."""

    code = "gist_storage_failed"


class EngineLost(Unavailable):
    """The engine died, or it runs without the selection layer."""

    code = "engine_lost"


class BaseModelUnavailable(Unavailable):
    """The base model is not on this machine and could not be fetched."""

    code = "base_model_unavailable"


class GistError(IncomesError):
    """The gist cannot be used."""

    code = "gist_error"


class GistFormatError(GistError):
    """Not a gist file, or one that is damaged."""

    code = "gist_format_error"


class FingerprintMismatch(GistError):
    """The gist was made by another model than the one that should read it."""

    code = "gist_model_mismatch"


class VerbatimError(IncomesError):
    """The vectors of a verbatim text cannot be used; the text itself can."""

    code = "verbatim_error"


class VerbatimDamaged(VerbatimError):
    """Not a verbatim record, or one that is not as it was written."""

    code = "verbatim_damaged"


class VerbatimStale(VerbatimError):
    """The vectors were made with other weights, another tokenizer or another template."""

    code = "verbatim_stale"


class VerbatimMismatch(VerbatimError):
    """Decoding gave something else than the text."""

    code = "verbatim_mismatch"


class CompressionFailed(IncomesError):
    """An edit could not be compressed after all retries."""

    code = "compression_failed"


class SelectionFailed(IncomesError):
    """The selection layer could not apply the pinned snapshot; the request fails."""

    code = "edit_selection_failed"


class UnsupportedEngine(IncomesError):
    """The engine or its configuration is one the selection layer has not been proven on."""

    code = "unsupported_engine"
