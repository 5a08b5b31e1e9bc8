"""checkpoint + `adapter.py` (what makes it edit-capable) -> `hf.py` (plain PyTorch); `assets/` is the default."""

from __future__ import annotations

from pathlib import Path

DEFAULT_MODEL_DIR = Path(__file__).parent / "assets" / "default"
"""The default model that ships in the package."""
