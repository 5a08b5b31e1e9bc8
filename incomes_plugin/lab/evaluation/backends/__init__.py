"""Where the model runs: `vllm.py` (the engine with the plugin), `hf.py` (the reference), `plain.py` (no adapter)."""
