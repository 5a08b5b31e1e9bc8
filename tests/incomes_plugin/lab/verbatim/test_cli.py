"""The commands on a tiny model: measure its capacity, cram a file with it, recall, go on, refuse."""

import json

import pytest
from typer.testing import CliRunner

from incomes_plugin.errors import InvalidValue, VerbatimDamaged
from incomes_plugin.lab.verbatim import cli
from incomes_plugin.lab.verbatim.cli import app, capacity_app

TEXTS = ["valve 7", "Zöe 12", "no<eos>end", "x=3;y"]


def run(command, *arguments):
    apps = {"capacity": capacity_app, "verbatim": app}
    return CliRunner().invoke(apps[command], list(map(str, arguments)))


def refusal(*arguments, error=InvalidValue):
    result = run(*arguments)
    assert result.exit_code == 1
    assert isinstance(result.exception, error), result.exception
    return result.exception.message


@pytest.fixture(scope="module")
def measured(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("capacity")
    result = run("capacity", folder, "--out", out, "--quick")
    assert result.exit_code == 0, result.output
    return out


def test_capacity_writes_its_results(measured):
    document = json.loads((measured / "verbatim-capacity.json").read_text())
    assert document["calibration"]["nats_per_vector"] > 0
    assert document["origin"]["model"].startswith("vf_")
    assert len(document["cells"]) == 5
    page = (measured / "verbatim-capacity.md").read_text()
    assert "| natural | 1 | 16 | bf16 |" in page
    assert (measured / "verbatim-capacity.png").stat().st_size > 5000


def test_capacity_goes_on(folder, measured):
    file = measured / "verbatim-capacity.json"
    before = json.loads(file.read_text())["cells"]
    assert run("capacity", folder, "--out", measured, "--quick", "--resume").exit_code == 0
    assert json.loads(file.read_text())["cells"] == before


@pytest.fixture(scope="module")
def report(folder, tmp_path_factory):
    """A calibration that gives every text as many vectors as it may have."""
    out = tmp_path_factory.mktemp("report")
    base = run("capacity", folder, "--out", out / "capacity", "--quick")
    assert base.exit_code == 0
    document = json.loads((out / "capacity" / "verbatim-capacity.json").read_text())
    document["calibration"] = {"nats_per_vector": 100 / 3, "efficiency": {"1": 1.0}}
    (out / "capacity.json").write_text(json.dumps(document))
    (out / "mine.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    arguments = ["verbatim", "report", out / "mine.jsonl", "--model", folder, "--out", out / "run", "--engine", "model"]
    arguments += ["--capacity", out / "capacity.json", "--max-steps", 300]
    return arguments, out / "run", run(*arguments)


def test_report(report):
    _, out, result = report
    assert result.exit_code == 0, result.output
    document = json.loads((out / "report.json").read_text())
    by_name = {text["name"]: text for text in document["texts"]}
    assert "special token '<eos>'" in by_name["text-3"]["reason"]
    held = [name for name, text in by_name.items() if text["exact"]]
    assert f"{len(held)} of 4 texts came back to the byte" in result.output
    assert len(held) >= 2
    assert "as storage the text is better" in result.output
    assert document["recall_tokens_per_s"] > 0
    assert sorted(path.stem for path in out.glob("text-*.safetensors")) == held


def test_report_is_not_overwritten_but_goes_on(report):
    arguments, out, _ = report
    before = {path.name: path.read_bytes() for path in out.glob("text-*.safetensors")}
    assert "--resume" in refusal(*arguments)
    assert run(*arguments, "--resume").exit_code == 0
    assert {path.name: path.read_bytes() for path in out.glob("text-*.safetensors")} == before


def test_what_the_engine_does_not_say_is_not_written(report, monkeypatch):
    """Accepted by the model, but another engine says something else: plain text with its reason, and no record."""
    arguments, out, _ = report
    monkeypatch.setattr(cli.ModelItself, "decode", lambda self, vectors, most: [[5] * n for n in most])
    new = out.parent / "mismatch"
    result = run(*arguments, "--out", new)
    assert "0 of 4 texts came back to the byte" in result.output
    assert "recall left the text" in result.output
    assert list(new.glob("text-*.safetensors")) == []


def test_recall(report, folder):
    _, out, _ = report
    path = sorted(out.glob("text-*.safetensors"))[0]
    found = run("verbatim", "recall", path, "--model", folder)
    assert found.stdout_bytes.decode() in TEXTS
    broken = bytearray(path.read_bytes())
    broken[-1] ^= 1
    path.write_bytes(bytes(broken))
    assert "another checksum" in refusal("verbatim", "recall", path, "--model", folder, error=VerbatimDamaged)
    assert "no file" in refusal("verbatim", "recall", path.with_name("absent"), "--model", folder)


def test_another_models_calibration_is_refused(report, folder):
    arguments, out, _ = report
    place = arguments.index("--capacity") + 1
    document = json.loads(arguments[place].read_text())
    document["origin"]["model"] = "vf_other"
    (out / "other.json").write_text(json.dumps(document))
    other = [*arguments[:place], out / "other.json", *arguments[place + 1 :], "--out", out / "new"]
    assert "measured with the model vf_other" in refusal(*other)
    assert not (out / "new").exists()
    assert "no engine 'abacus'" in refusal(*arguments, "--engine", "abacus")
