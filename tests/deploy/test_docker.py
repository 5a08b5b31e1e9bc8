"""The container files: hadolint has nothing to say, and every path, extra, version and place they name is there."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.deploy.chart import render
from tests.deploy.test_chart import CLUSTER, pods_of

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "deploy" / "docker").glob("*.Dockerfile"))
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGED = {"cpu": "cpu", "cuda": "cuda"}
"""Extra of the package in each container file."""


def text_of(path: Path) -> str:
    return path.read_text().replace("\\\n", " ")


def arguments(path: Path, instruction: str) -> list[str]:
    return re.findall(rf"^{instruction}\s+(.+)$", text_of(path), re.MULTILINE)


def test_cpu_and_cuda() -> None:
    assert [path.name.split(".")[0] for path in FILES] == list(PACKAGED)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_hadolint_finds_what_is_wrong(tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python:latest\nRUN cd /x && pip install y\n")
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), bad], capture_output=True, text=True, check=False
    )
    assert "DL3007" in done.stdout


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_copied_is_there_and_not_ignored(path: Path) -> None:
    ignore = Path(f"{path}.dockerignore").read_text().splitlines()
    kept = {line[1:] for line in ignore if line.startswith("!")}
    copied = {name for line in arguments(path, "COPY") if "--from" not in line for name in shlex.split(line)[:-1]}
    assert {"pyproject.toml", "setup.py", "incomes_plugin", "server", "README.md", "LICENSE"} == copied == kept
    assert [name for name in copied if not (ROOT / name).exists()] == []
    assert ignore[1] == "*"


def test_what_the_build_of_the_package_reads_is_copied() -> None:
    """setuptools reads the readme and the licence; the packages lie in two folders."""
    named = {PYPROJECT["project"]["readme"], *PYPROJECT["project"]["license-files"]}
    folders = set(PYPROJECT["tool"]["setuptools"]["package-dir"].values())
    copied = {name for line in arguments(FILES[0], "COPY") for name in shlex.split(line)}
    assert named | folders <= copied


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_extras_exist(path: Path) -> None:
    extras = [extra for found in re.findall(r'"\.\[([\w,]+)\]"', text_of(path)) for extra in found.split(",")]
    assert extras == [PACKAGED[path.name.split(".")[0]], "serve", "s3"]
    assert set(extras) <= set(PYPROJECT["project"]["optional-dependencies"])


def test_the_cpu_image_has_the_same_pytorch_as_make_setup() -> None:
    script = (ROOT / "deploy" / "setup" / "environment.py").read_text()
    torch, index = (re.search(rf'^{name} = "(.+)"', script, re.MULTILINE) for name in ("TORCH_CPU", "TORCH_CPU_INDEX"))
    assert torch is not None
    assert index is not None
    assert f'"{torch[1]}" --extra-index-url {index[1]}' in text_of(ROOT / "deploy" / "docker" / "cpu.Dockerfile")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_base_images_are_pinned_and_of_a_supported_python(path: Path) -> None:
    bases = arguments(path, "FROM")
    assert len(bases) == 2
    for base in bases:
        version = re.fullmatch(r"python:(3\.\d+)\.\d+-(slim-)?bookworm(@sha256:[0-9a-f]{64})?( AS build)?", base)
        assert version, base
        assert version[1] in ("3.11", "3.12")
    assert len({base.split("-")[0] for base in bases}) == 1  # one interpreter: the environment is copied


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_does_not_run_as_root_and_says_how_it_is(path: Path) -> None:
    assert arguments(path, "USER") == ["10001:10001"]
    assert arguments(path, "ENTRYPOINT") == ['["tini", "--", "incomes"]']
    assert arguments(path, "EXPOSE") == ["8000 8001"]
    (check,) = arguments(path, "HEALTHCHECK")
    assert "8001/livez" in check


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_image_and_chart_agree(path: Path) -> None:
    """The chart mounts a volume at each place that the image writes to, and runs it as the same user."""
    pod = render()[("Deployment", "r-incomes")]["spec"]["template"]["spec"]
    mounted = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"] if not mount.get("readOnly")}
    environment = dict(re.findall(r"(\w+)=(\S+)", " ".join(arguments(path, "ENV"))))
    (volumes,) = arguments(path, "VOLUME")
    written = [environment[name] for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")]
    written += [f"{environment['XDG_DATA_HOME']}/incomes", *re.findall(r'"(.+?)"', volumes), "/tmp"]
    assert [place for place in written if not any(fnmatch(f"{place}/", f"{mount}/*") for mount in mounted)] == []
    user = f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}"
    assert arguments(path, "USER") == [user]


@pytest.mark.parametrize("mode", ["deployment", "rayservice"])
def test_every_pod_of_a_cluster_has_a_home_and_a_place_for_what_is_temporary(mode: str) -> None:
    pods = pods_of(render(CLUSTER, {"mode": mode, "compression": {"replicas": 1}}))
    assert len(pods) == 3
    for pod in pods:
        mounted = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"] if not mount.get("readOnly")}
        assert {"/var/cache/incomes", "/tmp", "/dev/shm"} <= mounted


def test_the_driver_of_postgresql_is_in_the_image() -> None:
    assert any(name.startswith("psycopg[binary]") for name in PYPROJECT["project"]["dependencies"])


@pytest.mark.slow
def test_the_image_has_every_file_of_the_two_packages(tmp_path: Path) -> None:
    """What is copied is enough to build the package, and the package leaves none of its files behind."""
    copied = sorted(
        {name for line in arguments(FILES[0], "COPY") if "--from" not in line for name in line.split()[:-1]}
    )
    source = tmp_path / "src"
    source.mkdir()
    listed = subprocess.run(["git", "ls-files", "-z", *copied], cwd=ROOT, capture_output=True, text=True, check=True)
    files = [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    for name in files:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "."]
    subprocess.run([*pip, "--wheel-dir", str(tmp_path)], cwd=source, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    packaged = {re.sub("^incomes_server/", "server/", name) for name in ZipFile(wheel).namelist()}
    assert [name for name in files if name.startswith(("incomes_plugin/", "server/")) and name not in packaged] == []
