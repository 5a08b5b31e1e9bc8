"""InComeS inside vLLM. Every touch of vLLM internals lives in this package and is listed in `touches.py`.

launcher.py   vLLM's OpenAI app in this process, with our worker class ─ endpoints.py  /plugins/incomes/status
engine.py     EditEngine: commit, find, canary, attribution ─ compressor.py  capture ─ registry.py  snapshots, pins
    │ request                                   │ collective RPC (wire.py)
    ▼                                           ▼
pin.py        scope -> snapshot, cache salt     worker.py     pool commits, captures, traces
    │ guard.py (engine core)                    │
    ▼                                           ▼
rows_v1.py / rows_v2.py   rows of the step ──►  runtime.py    one plan per step (step.py)
                                                │ inject.py swapped the impl of each gist layer
                                                ▼
                                                layer.py ──►  reader.py   pages read by the backend's own kernel
"""

from incomes_plugin.vllm.register import register

__all__ = ["register"]
