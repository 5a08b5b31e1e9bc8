"""The artefact: capture -> Gist -> bytes -> store -> bytes -> pool."""

from incomes_plugin.gist.fingerprint import model_fingerprint
from incomes_plugin.gist.format import dump_gists, load_gists, read_header
from incomes_plugin.gist.types import Gist, GistShape

__all__ = ["Gist", "GistShape", "dump_gists", "load_gists", "model_fingerprint", "read_header"]
