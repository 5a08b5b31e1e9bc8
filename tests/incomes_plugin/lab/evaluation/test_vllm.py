"""The engine gives the reference's answers, with pools committed in several deltas, and names the edit it read."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.vllm

EDITS = [f"Tower {i} is painted in shade {i * 37 % 101}." for i in range(7)] + ["x" * 2000]
PROMPTS = ["user: Which shade has tower 3?\nassistant:", "user: Hello\nassistant:", "user: tower 5\nassistant:"]
CHILD = """
import json, sys
from pathlib import Path
from incomes_plugin.lab.evaluation.backends import vllm
from incomes_plugin.lab.evaluation.interface import EvalEdit

def main():
    vllm.EDITS_PER_COMMIT = 3
    base, adapter, edits, prompts = json.load(sys.stdin)
    edits = [EvalEdit(i, text) for i, text in enumerate(edits)]
    generator = vllm.VllmGenerator(Path(base), Path(adapter), 512, largest=edits, dtype="float32")
    prompts = [generator.text_ids(prompt) for prompt in prompts]
    pool = generator.add(edits)
    answers = generator.generate(prompts, pool, 8)
    plain = generator.generate(prompts, None, 8)
    generator.release(pool)
    again = generator.generate(prompts, generator.add(edits), 8)
    generator.close()
    print("RESULT" + json.dumps([
        pool.num_edits, pool.refused, pool.num_bytes, generator.fingerprint, [a.tokens for a in answers],
        [a.tokens for a in plain], [a.tokens for a in again], [a.applied for a in answers],
    ]))

if __name__ == "__main__":
    main()
"""


def test_the_engine_answers_as_the_reference_does(served, tmp_path):
    from incomes_plugin.lab.evaluation.backends.hf import HfGenerator
    from incomes_plugin.lab.evaluation.interface import EvalEdit

    script = tmp_path / "child.py"
    script.write_text(CHILD)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[4])}
    done = subprocess.run(
        [sys.executable, str(script)],
        input=json.dumps([str(served.base_dir), str(served.adapter_dir), EDITS, PROMPTS]),
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    num_edits, refused, num_bytes, fingerprint, answers, plain, again, named = json.loads(line.removeprefix("RESULT"))

    reference = HfGenerator(served.base_dir, served.adapter_dir, 512)
    pool = reference.add([EvalEdit(i, text) for i, text in enumerate(EDITS)])
    prompts = [reference.text_ids(prompt) for prompt in PROMPTS]
    expected = reference.generate(prompts, pool, 8)
    assert (num_edits, tuple(refused)) == (pool.num_edits, pool.refused)
    assert num_bytes > 0
    assert fingerprint == reference.fingerprint
    assert answers == again == [list(a.tokens) for a in expected]
    assert plain == [list(a.tokens) for a in reference.generate(prompts, None, 8)]
    assert answers != plain
    assert [set(places) for places in named] == [set(a.applied) for a in expected]
