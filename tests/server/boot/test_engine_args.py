"""What vLLM is told: CPU defaults that the user can override, and nothing that would contradict the server."""

from pathlib import Path

import pytest
from incomes_server.boot.engine_args import prepare_vllm, vllm_arguments
from incomes_server.settings import load_settings

from incomes_plugin.errors import InvalidValue

SETTINGS = load_settings(model="some-base").settings
BASE = Path("/m")


def test_the_users_flags_come_last_and_win():
    arguments = vllm_arguments(SETTINGS, BASE, ["--block-size", "64"], cpu=True)
    assert arguments[:2] == ["--model", "/m"]
    assert arguments[-2:] == ["--block-size", "64"]
    assert "--enforce-eager" in arguments


def test_an_opposite_drops_the_default():
    assert "--enforce-eager" not in vllm_arguments(SETTINGS, BASE, ["--no-enforce-eager"], cpu=True)


@pytest.mark.parametrize("flag", ["--tensor-parallel-size=2", "-tp"])
def test_parallel_engines_keep_vllms_layout(flag):
    environment = {}
    prepare_vllm(SETTINGS, [flag, "2"], environment, cpu=True)
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in environment
    assert environment["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    arguments = vllm_arguments(SETTINGS, BASE, [flag, "2"], cpu=True)
    assert "uni" not in arguments
    assert "--enforce-eager" in arguments


def test_no_cpu_defaults_on_a_gpu():
    environment = {}
    prepare_vllm(SETTINGS, [], environment, cpu=False)
    assert "OMP_NUM_THREADS" not in environment
    assert "--enforce-eager" not in vllm_arguments(SETTINGS, BASE, [], cpu=False)


def test_the_environment_given_stays():
    environment = {"OMP_NUM_THREADS": "5"}
    prepare_vllm(SETTINGS, [], environment, cpu=True)
    assert environment["OMP_NUM_THREADS"] == "5"
    assert not [name for name in environment if name.startswith("INCOMES_")]


@pytest.mark.parametrize("flag", ["--model", "--port=9", "--api-key", "--served-model-name"])
def test_what_both_must_know_is_refused(flag):
    with pytest.raises(InvalidValue, match="before the --"):
        vllm_arguments(SETTINGS, BASE, [flag], cpu=True)
