"""One virtual environment for everything: `.venv` with PyTorch, vLLM, Ray and the package itself (editable).

Last comes the base model, into the person's cache. Called by the Makefile before every target that needs it; a second
call compares a stamp and the sizes of the model's files and returns at once.
Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TORCH_CPU = "torch==2.13.0+cpu"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
COMPANIONS = ("torchvision", "torchaudio", "torchcodec")
FREE_GB = 6
INTO_THE_ENVIRONMENT = ("--no-user", "--target=")
ELSEWHERE = {"PIP_PREFIX", "PIP_ROOT", "PIP_PYTHON"}
"""A person's pip settings say where packages come from and which versions are allowed, never where they go."""
WHOLE_INSTALLATION = {"PIP_DRY_RUN": "0", "PIP_NO_DEPS": "0", "PIP_REQUIRE_HASHES": "0", "PIP_QUIET": "0"}
"""Nor how much is installed, nor whether pip says why it failed. The environment outranks every pip.conf."""
SUPPORTED = ((3, 11), (3, 12))


class SetupError(Exception):
    """A set-up step failed; the message says what to do."""


def stamp_of(root: Path, extras: str) -> str:
    """Hash of all that decides what is installed: this script, the interpreter, the packaging half of pyproject."""
    import tomllib

    pyproject = tomllib.loads((root / "pyproject.toml").read_text())
    parts = [pyproject["build-system"], pyproject["project"], pyproject["tool"]["setuptools"]]
    digest = hashlib.sha256(Path(__file__).read_bytes())
    digest.update(json.dumps([parts, extras, sys.version_info[:2], str(root)], sort_keys=True).encode())
    return digest.hexdigest()


def check_python() -> None:
    """Refuse an interpreter the packages do not exist for.

    Raises:
        SetupError: not Python 3.11 or 3.12.
    """
    if sys.version_info[:2] not in SUPPORTED:
        found = sys.version.split()[0]
        raise SetupError(f"Python {found} found, 3.11 or 3.12 is needed: make PYTHON=/path/to/python3.11")


def check_machine(venv: Path) -> None:
    """Refuse at once what would fail minutes later.

    Raises:
        SetupError: no venv module, or too little disk space.
    """
    try:
        import ensurepip  # noqa: F401
        import venv as _venv  # noqa: F401
    except ImportError as error:
        raise SetupError(f"this Python has no {error.name} module; on Debian: apt-get install python3-venv") from error
    free_gb = shutil.disk_usage(venv.parent).free / 1e9
    if free_gb < FREE_GB:
        raise SetupError(f"{free_gb:.1f} GB free beside {venv}; {FREE_GB} GB are needed")


def say(text: str) -> None:
    """One line for the person who waits."""
    sys.stdout.write(f"set-up: {text}\n")
    sys.stdout.flush()


class Environment:
    """The virtual environment at `path`, its pip, and the log both write to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.python = path / "bin" / "python"
        self.log = path / "setup.log"

    def create(self) -> None:
        """Make the environment unless it has a working interpreter already."""
        if self.python.exists() and self.run("-c", "import pip") == 0:
            return
        shutil.rmtree(self.path, ignore_errors=True)
        command = [sys.executable, "-m", "venv", str(self.path)]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            raise SetupError(f"python -m venv failed: {(made.stdout + made.stderr).strip()}")

    def run(self, *args: str) -> int:
        """Exit status of the environment's Python; output goes to the log."""
        with self.log.open("a") as log:
            log.write(f"$ python {' '.join(args)}\n")
            log.flush()
            env = {name: value for name, value in os.environ.items() if name not in ELSEWHERE} | WHOLE_INSTALLATION
            command = [str(self.python), *args]
            return subprocess.run(command, stdout=log, stderr=log, cwd=ROOT, env=env, check=False).returncode

    def install(self, what: str, *args: str) -> None:
        """`pip install` into this environment, from the person's indexes and within their constraints.

        Raises:
            SetupError: pip failed; the message carries the end of its output.
        """
        start = self.log.stat().st_size if self.log.exists() else 0
        with Ticker(what):
            pip = ("-m", "pip", "install", "--disable-pip-version-check", "--no-input", *INTO_THE_ENVIRONMENT)
            status = self.run(*pip, *args)
        if status:
            raise SetupError(f"installing {what} failed, see {self.log}:\n{self.log_since(start)[-2000:].strip()}")

    def log_since(self, offset: int) -> str:
        """What the log got after byte `offset`."""
        return self.log.read_bytes()[offset:].decode(errors="replace")


class Ticker:
    """Prints what is being done and, on a terminal, the seconds it has taken so far."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> None:
        self.start_s = time.monotonic()
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()
        say(f"{self.what}: {time.monotonic() - self.start_s:.0f} s")

    def _tick(self) -> None:
        while not self.done.wait(1.0):
            if sys.stdout.isatty():
                sys.stdout.write(f"\rset-up: {self.what} … {time.monotonic() - self.start_s:.0f} s \r")
                sys.stdout.flush()


def install_torch(env: Environment) -> None:
    """CPU PyTorch from the configured package indexes, and only where they lack it from PyTorch's own."""
    try:
        env.install(TORCH_CPU, TORCH_CPU)
    except SetupError as error:
        if "No matching distribution" not in str(error):
            raise
        say(f"the configured indexes have no {TORCH_CPU}; taking it from PyTorch's CPU index")
        env.install(TORCH_CPU, TORCH_CPU, "--extra-index-url", TORCH_CPU_INDEX)


def remove_broken_companions(env: Environment) -> None:
    """Uninstall torchvision & co. built for another PyTorch: their mere presence breaks `import transformers`."""
    broken = [name for name in COMPANIONS if present(env, name) and env.run("-c", f"import {name}")]
    if broken:
        env.run("-m", "pip", "uninstall", "-y", *broken)
        say(f"removed {', '.join(broken)}: built for another PyTorch, cannot load beside {TORCH_CPU}")


def present(env: Environment, name: str) -> bool:
    """Whether a distribution is installed."""
    return env.run("-c", f"import importlib.metadata as m; m.version('{name}')") == 0


def fetch_base(env: Environment) -> None:
    """Fetch the base model unless the cache has it; the check needs milliseconds and nothing installed.

    Raises:
        SetupError: it cannot be fetched; the message says what to do.
    """
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    from incomes_plugin.model.base import DEFAULT_BASE, base_dir, damage

    if damage(base_dir()) is None:
        return
    start = env.log.stat().st_size if env.log.exists() else 0
    with Ticker(f"base model {DEFAULT_BASE}"):
        status = env.run("-m", "incomes_plugin.model.base")
    if status:
        raise SetupError(f"no base model, see {env.log}:\n{env.log_since(start)[-2000:].strip()}")


def set_up(venv: Path, extras: str) -> None:
    """Bring `venv` up to date with pyproject.toml and fetch the base model; nothing to do when both are there."""
    check_python()
    env, stamp, stamp_file = Environment(venv), stamp_of(ROOT, extras), venv / ".incomes-setup"
    if env.python.exists() and stamp_file.is_file() and stamp_file.read_text() == stamp:
        fetch_base(env)
        return
    check_machine(venv)
    start_s = time.monotonic()
    say(f"installing into {venv} (a few minutes, once)")
    env.create()
    stamp_file.unlink(missing_ok=True)
    if "cpu" in extras.split(","):
        install_torch(env)
    env.install(f"incomes[{extras}]", "--editable", f".[{extras}]")
    remove_broken_companions(env)
    if env.run("-c", "import torch, transformers, ray, incomes_plugin, incomes_server"):
        raise SetupError(f"the installed packages do not import, see {env.log}:\n{env.log_since(0)[-2000:].strip()}")
    if shutil.which("g++") is None:
        say("no g++ found: the engine runs eagerly (torch.compile on CPU needs a C++ compiler)")
    stamp_file.write_text(stamp)
    fetch_base(env)
    say(f"done in {time.monotonic() - start_s:.0f} s")


def main() -> int:
    """Command line: `environment.py [--venv DIR] [--extras cpu,dev]`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv")
    parser.add_argument("--extras", default="cpu,dev")
    args = parser.parse_args()
    try:
        set_up(args.venv.absolute(), args.extras)
    except SetupError as error:
        sys.stderr.write(f"set-up failed: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
