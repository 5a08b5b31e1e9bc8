"""InComeS inside vLLM. Every touch of vLLM internals lives in this package and is listed in `touches.py`.

launcher.py   vLLM's OpenAI app in this process, with our worker class ─ endpoints.py  /plugins/incomes/status
engine.py     EditEngine: commit, find, attribution ─ compressor.py  capture ─ registry.py  snapshots, pins
    │ request                                   │ collective RPC (wire.py)
    ▼                                           ▼
pin.py        scope -> snapshot, question       worker.py     pool commits, captures, traces
    │ blocks.py (who may reuse its KV blocks)   │
    │ guard.py (engine core)                    │
    ▼                                           ▼
rows_v1.py / rows_v2.py   rows of the step ──►  runtime.py    one plan per step (step.py)
                                                │ inject.py swapped the impl of each reading layer
              ┌─────────────────────────────────┤
              ▼ once a request                  ▼ every reading row, every reading layer
kv_cache.py   features of the question          layer.py      reads the picks (batch.py), into traces.py
leads.py      verbatim edits that probes find   copies.py     once a step: logits of rows that copy from the picks
                                                recalls.py    vectors in the place of a recall's embeddings
"""

from incomes_plugin.vllm.register import register

__all__ = ["register"]
