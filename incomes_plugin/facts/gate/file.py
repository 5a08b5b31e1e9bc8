"""FactGate: the fitted gate of a model, and its file `fact_gate/gate.safetensors` beside the checkpoint.

A folder of its own, so that neither vLLM nor the model's fingerprint takes it for weights. It holds
    prototypes  [F, R]     question  [R, R]     offset  [R]     float32, see `hidden.py`
and in its metadata format, fingerprint, winners, reach, threshold, growth and crowd.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from incomes_plugin.errors import FingerprintMismatch, GistFormatError
from incomes_plugin.facts.gate.hidden import HiddenLayer
from incomes_plugin.gist.fingerprint import model_fingerprint

FILE = Path("fact_gate") / "gate.safetensors"
FORMAT = "2"
COMMAND = "python -m incomes_plugin.facts.gate.fit"
_TENSORS = ("prototypes", "question", "offset")


@dataclass(frozen=True)
class FactGate:
    """What one model's memories share.

    Attributes:
        hidden: the fixed hidden layer.
        reach: a token reads nothing if its most excited unit is this far from the zero-gist's logit, or farther; set
            so that all tokens that asked in the fit still read.
        threshold: among `crowd` edits a token whose zero-gist weighs this much or more reads nothing, if the router's
            own is not lower; set as strict as rightly routed questions allow. 1 or more = never.
        growth: what the threshold's log-odds gain for every e-fold of edits beyond `crowd`.
        crowd: edits among which the threshold was read off.
    """

    hidden: HiddenLayer
    reach: float
    threshold: float
    growth: float = 0.0
    crowd: int = 1

    def threshold_among(self, num_edits: int) -> float:
        """The threshold for an edit set of this size."""
        if self.threshold >= 1:
            return self.threshold
        odds = log_odds(self.threshold) + self.growth * math.log(max(1.0, num_edits / self.crowd))
        return 1 / (1 + math.exp(-odds))

    def to(self, device: torch.device) -> FactGate:
        """The same gate on a device."""
        return replace(self, hidden=self.hidden.to(device))

    def save(self, model_dir: Path) -> None:
        """Write the file, bound to the model."""
        metadata = {
            "format": FORMAT,
            "fingerprint": model_fingerprint(model_dir, torch.float32),
            "winners": str(self.hidden.winners),
            "reach": repr(self.reach),
            "threshold": repr(self.threshold),
            "growth": repr(self.growth),
            "crowd": str(self.crowd),
        }
        path = model_dir / FILE
        path.parent.mkdir(exist_ok=True)
        tensors = {name: getattr(self.hidden, name).float().contiguous().cpu() for name in _TENSORS}
        save_file(tensors, path, metadata)

    @classmethod
    def load(cls, model_dir: Path) -> FactGate:
        """Read a model's gate.

        Raises:
            GistFormatError: none, or another format.
            FingerprintMismatch: it was fitted to another model.
        """
        path = model_dir / FILE
        if not path.is_file():
            raise GistFormatError(f"{model_dir} has no {FILE}; make it with `{COMMAND} {model_dir}`")
        try:
            with safe_open(path, framework="pt") as file:
                names = list(file.keys())
                metadata, tensors = file.metadata() or {}, {name: file.get_tensor(name) for name in names}
        except SafetensorError as error:
            raise GistFormatError(f"{path} is no safetensors file: {error}") from error
        if metadata.get("format") != FORMAT or set(tensors) != set(_TENSORS):
            raise GistFormatError(f"{path}: format {metadata.get('format')!r}, expected {FORMAT!r}; `{COMMAND}` anew")
        fingerprint = model_fingerprint(model_dir, torch.float32)
        if metadata["fingerprint"] != fingerprint:
            raise FingerprintMismatch(
                f"{path} was fitted to model {metadata['fingerprint']}, this is {fingerprint}; "
                f"fit it anew with `{COMMAND} {model_dir}`"
            )
        hidden = HiddenLayer(**tensors, winners=int(metadata["winners"]))
        reach, threshold, growth = (float(metadata[name]) for name in ("reach", "threshold", "growth"))
        return cls(hidden, reach, threshold, growth, int(metadata["crowd"]))


def log_odds(share: float) -> float:
    """Of a share between 0 and 1."""
    return math.log(share) - math.log1p(-share)
