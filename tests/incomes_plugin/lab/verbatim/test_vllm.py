"""vLLM says what was crammed: many texts at once and each alone, from the bytes of their records, to the byte."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from incomes_plugin.lab.verbatim.precision import Precision
from incomes_plugin.lab.verbatim.record import VerbatimChunk, VerbatimRecord, digest, dump
from tests.incomes_plugin.lab.verbatim.conftest import TEXTS, K

pytestmark = pytest.mark.vllm

CHILD = """
import json, sys
from pathlib import Path
from incomes_plugin.lab.verbatim.decode import VllmRecall
from incomes_plugin.lab.verbatim.frozen import FrozenModel
from incomes_plugin.lab.verbatim.record import load_record
from incomes_plugin.lab.verbatim.recall import recall
from incomes_plugin.errors import VerbatimMismatch

def main():
    folder, records = json.load(sys.stdin)
    model = FrozenModel(Path(folder))
    records = [load_record(Path(path).read_bytes()) for path in records]
    engine = VllmRecall(model, 256, 8)
    chunks = [record.chunks[0] for record in records]
    together = engine.decode([c.vectors for c in chunks], [c.num_tokens + 1 for c in chunks])
    again = engine.decode([c.vectors for c in chunks], [c.num_tokens + 1 for c in chunks])  # prefix blocks are warm
    alone = [recall(record, engine.decode, model.tokenizer, model.end_id) for record in records]
    other = engine.decode([-chunks[0].vectors], [chunks[0].num_tokens + 1])
    plain = engine.continuations([model.template], [5])
    engine.close()
    print("RESULT" + json.dumps([together, again, alone, other, len(plain[0]), model.end_id]))

if __name__ == "__main__":
    main()
"""


def test_vllm_says_the_texts(model, crammed, folder, tmp_path):
    paths, ids = [], []
    for number, text in enumerate(TEXTS):
        chunk = VerbatimChunk.of(crammed[text])
        assert len(chunk.vectors) == K
        record = VerbatimRecord(model.origin, Precision.BFLOAT16, digest(text.encode()), (chunk,))
        paths.append(tmp_path / f"{number}.safetensors")
        paths[-1].write_bytes(dump(record))
        ids.append([*crammed[text].target.ids, model.end_id])
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    done = subprocess.run(
        [sys.executable, str(script)],
        input=json.dumps([str(folder), list(map(str, paths))]),
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[4])},
        timeout=550,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    together, again, alone, other, plain, end_id = json.loads(line.removeprefix("RESULT"))
    assert end_id == model.end_id
    assert together == again == ids
    assert alone == list(TEXTS)
    assert other[0] != ids[0]
    assert plain == 5
