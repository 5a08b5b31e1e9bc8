"""Where the model runs: `vllm.py` (the product's engine and plugin) and `hf.py` (the reference in plain PyTorch)."""
