"""A gist: what the model kept of one edit, as an object and as bytes.

captured keys and values ─► types.py   `Gist`: features for routing and latents for reading, in 8 bits
token ids of the text ────► spelling.py  the tokens by which an answer may say pieces of it
                            format.py  `Gist` ─► safetensors ─► `Gist`, for the store and the engine's workers
                            header.py  which edits a blob holds, read without torch
base and adapter files   ─► fingerprint.py  the id of the model that made a gist; another model must not read it

Names are imported when they are first used: the store's processes need `header.py` and must not load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from incomes_plugin.gist.fingerprint import base_fingerprint, model_fingerprint
    from incomes_plugin.gist.format import dump_gists, load_gists
    from incomes_plugin.gist.header import read_header
    from incomes_plugin.gist.types import Gist, GistShape

__all__ = ["Gist", "GistShape", "base_fingerprint", "dump_gists", "load_gists", "model_fingerprint", "read_header"]

_MODULES = {
    "Gist": "types",
    "GistShape": "types",
    "base_fingerprint": "fingerprint",
    "dump_gists": "format",
    "load_gists": "format",
    "model_fingerprint": "fingerprint",
    "read_header": "header",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
