"""`python -m tests.suites` runs every test that there is, and says so when one fails."""

from pathlib import Path

from tests import suites

ROOT = Path(__file__).parents[2]


def test_every_test_file_belongs_to_one_suite():
    folders = [ROOT / folder for suite in suites.SUITES for folder in suite]
    files = list((ROOT / "tests").rglob("test_*.py"))
    assert len(files) > 100
    for file in files:
        assert sum(folder in file.parents for folder in folders) == 1, file


def test_a_failed_suite_is_named_and_gives_a_status(tmp_path, monkeypatch, capfd):
    good, bad = tmp_path / "good", tmp_path / "bad"
    for folder, claim in ((good, "True"), (bad, "False")):
        folder.mkdir()
        (folder / "test_claim.py").write_text(f"def test_claim():\n    assert {claim}\n")
    monkeypatch.setattr(suites, "SUITES", ((str(good),), (str(bad),)))

    assert suites.main(["-q"]) == 1

    printed = capfd.readouterr().out
    assert f"failed: {bad}" in printed
    assert f"failed: {good}" not in printed
    assert "1 passed" in printed
    assert "1 failed" in printed


def test_progress_is_what_pytest_printed_last():
    assert suites.progress("tests/a.py ...  [  7%]\ntests/b.py ..  [ 48%]\nte") == "48 %"
    assert suites.progress("collecting") == "0 %"
