"""What every admin route needs, bundled once at start-up, and what it reads from the request."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, cast

from fastapi import Depends, Header, Query, Request
from incomes_server.api.admin.asker import StateAsker
from incomes_server.api.admin.pool_room import PoolRoom
from incomes_server.api.admin.schemas import WaitFor
from incomes_server.api.admin.tokens import EditTokenizer
from incomes_server.auth.keys import KeyRing
from incomes_server.auth.principal import Principal
from incomes_server.compression.client import CompressionClient
from incomes_server.settings import Settings
from incomes_server.store.client import StoreClient
from incomes_server.store.directory import EditSetDirectory

if TYPE_CHECKING:
    from incomes_plugin.lab.verbatim.serving import Recaller


@dataclass(frozen=True)
class AdminContext:
    """Clients and pure parts behind the admin routes.

    Attributes:
        asker, recaller: what asks the served model and has it say verbatim texts; None where no model is served.
        imports: set when there is an import to begin or to end.
    """

    settings: Settings
    store: StoreClient
    queue: CompressionClient
    tokenizer: EditTokenizer
    directory: EditSetDirectory
    room: PoolRoom
    keys: KeyRing
    asker: StateAsker | None = None
    recaller: Recaller | None = None
    imports: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True)
class Wait:
    """How long a write may take to reach which state; made when the request arrives."""

    target: WaitFor
    timeout_s: float
    started: float = field(default_factory=time.monotonic)

    @property
    def left_s(self) -> float:
        """Seconds until the timeout."""
        return max(0.0, self.started + self.timeout_s - time.monotonic())

    @property
    def elapsed_s(self) -> float:
        """Seconds since the request arrived."""
        return time.monotonic() - self.started


def admin_context(request: Request) -> AdminContext:
    """The context put on the app by `build_admin_app`."""
    return cast(AdminContext, request.app.state.context)


def project_of(request: Request) -> str:
    """Tenant of the request, set by `AuthMiddleware` from the key alone."""
    return cast(str, request.state.project)


def write_id(
    request: Request,
    idempotency_key: Annotated[str | None, Header(max_length=255, description="repeat of a write is done once")] = None,
) -> str:
    """Request id of a write: stable for the same Idempotency-Key on the same route, else unique."""
    if idempotency_key is None:
        return secrets.token_hex(16)
    scope = f"{project_of(request)}\n{request.method}\n{request.url.path}\n{idempotency_key}"
    return "idem_" + hashlib.sha256(scope.encode()).hexdigest()


Timeout = Annotated[
    float, Query(gt=0, allow_inf_nan=False, description="seconds to wait for the state named by `wait`")
]


def wait_accepted(context: Context, wait: WaitFor = WaitFor.ACCEPTED, timeout_s: Timeout = 30.0) -> Wait:
    """`?wait=&timeout_s=` of writes that add."""
    return Wait(wait, min(timeout_s, context.settings.max_wait_s))


def wait_active(context: Context, wait: WaitFor = WaitFor.ACTIVE, timeout_s: Timeout = 30.0) -> Wait:
    """`?wait=&timeout_s=` of writes that remove: acknowledged only when no replica uses the edit any more."""
    return Wait(wait, min(timeout_s, context.settings.max_wait_s))


def principal_of(request: Request) -> Principal:
    """Who sends the request, set by `AuthMiddleware`."""
    return cast(Principal, request.state.principal)


Context = Annotated[AdminContext, Depends(admin_context)]
Project = Annotated[str, Depends(project_of)]
Caller = Annotated[Principal, Depends(principal_of)]
WriteId = Annotated[str, Depends(write_id)]
WaitToAdd = Annotated[Wait, Depends(wait_accepted)]
WaitToRemove = Annotated[Wait, Depends(wait_active)]
Limit = Annotated[int, Query(ge=1, le=100, description="items in a page")]
