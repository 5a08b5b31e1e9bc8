"""The edit adapter: what makes a frozen base take edits. `incomes adapt` writes it; the engine and the reference read
it.

It is a folder of two files. The base's own files are neither copied nor changed.
`edit_adapter.json`         format, base, shape, template and rules
`edit_adapter.safetensors`  tensors: `mean`, `scale` `[F]` of the features, and those of `router.*`, `verifier.*`,
                            `judge.*`, `codec.*`, `reader.*` and `copier.*` (`selection/`) by their names there. Large
                            matrices are kept in 8 bits (`eight_bits.py`); all are float32 once read
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from incomes_plugin.errors import FingerprintMismatch, GistFormatError
from incomes_plugin.gist.fingerprint import base_fingerprint
from incomes_plugin.gist.spelling import Spelling
from incomes_plugin.gist.types import Gist, GistShape, Packed
from incomes_plugin.model.eight_bits import packed, unpacked
from incomes_plugin.selection.codec import Codec
from incomes_plugin.selection.conflicts import Judge
from incomes_plugin.selection.copying import Copier
from incomes_plugin.selection.picks import Picking
from incomes_plugin.selection.question import PromptTemplate
from incomes_plugin.selection.reading import Reader
from incomes_plugin.selection.routing import Router
from incomes_plugin.selection.rules import RoutingRules
from incomes_plugin.selection.verifier import Verifier

FORMAT = 10
CONFIG_FILE = "edit_adapter.json"
TENSOR_FILE = "edit_adapter.safetensors"


@dataclass(frozen=True)
class BaseModel:
    """The base that an adapter belongs to.

    Attributes:
        name: `default`, a hub id, or a folder.
        fingerprint: `base_fingerprint` of its files.
    """

    name: str
    fingerprint: str


@dataclass(frozen=True)
class EditAdapter:
    """Everything beside the base that capture, routing and reading need.

    Attributes:
        base: which base it belongs to.
        shape: of the gists.
        num_heads: H.
        template: how the base frames texts.
        max_edit_tokens: longest edit text in tokens.
        mean, scale: `[F]`, of the base's features; `standardise` uses them.
        rules: calibrated numbers of routing.
    """

    base: BaseModel
    shape: GistShape
    num_heads: int
    template: PromptTemplate
    max_edit_tokens: int
    mean: torch.Tensor
    scale: torch.Tensor
    router: Router
    verifier: Verifier
    judge: Judge
    codec: Codec
    reader: Reader
    copier: Copier
    rules: RoutingRules

    @property
    def picking(self) -> Picking:
        """What a request's picks are made with."""
        return Picking(self.router, self.verifier, self.judge, self.rules)

    def standardise(self, keys: torch.Tensor) -> torch.Tensor:
        """Features `[T, F]` float32 from the feature layers' keys before rotary embedding, `[T, F]`."""
        return (keys.float() - self.mean.to(keys.device)) / self.scale.to(keys.device)

    def gist(
        self,
        edit_id: str,
        version: int,
        features: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        spelling: Spelling,
    ) -> Gist:
        """The gist of a captured edit of E tokens.

        Args:
            features: `[E, F]`, standardised.
            keys: `[E, L', K, D]`, before rotary embedding.
            values: `[E, L', K, D]`.
            spelling: of its tokens.
        """
        with torch.inference_mode():
            latents = self.codec.encode(keys, values)
        return Gist(edit_id, version, Packed.of(features), Packed.of(latents), spelling=spelling)

    def to(self, device: torch.device) -> EditAdapter:
        """Move all tensors; the modules are moved in place."""
        for module in self._modules().values():
            module.to(device)
        return self

    def save(self, folder: Path) -> None:
        """Write both files."""
        folder.mkdir(parents=True, exist_ok=True)
        config = {
            "format": FORMAT,
            "base": asdict(self.base),
            "shape": asdict(self.shape),
            "num_heads": self.num_heads,
            "template": asdict(self.template),
            "max_edit_tokens": self.max_edit_tokens,
            "router": {"route_dim": self.router.query.out_features, "hidden_dim": self.router.inner.out_features},
            "verifier": self.verifier.config,
            "copier": self.copier.config,
            "rules": asdict(self.rules),
        }
        tensors = {"mean": self.mean, "scale": self.scale}
        for name, module in self._modules().items():
            tensors |= {f"{name}.{key}": tensor for key, tensor in module.state_dict().items()}
        save_file(packed(tensors), folder / TENSOR_FILE)
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> EditAdapter:
        """Read an adapter.

        Raises:
            GistFormatError: no adapter, another format, or tensors that do not fit the shape.
        """
        path = folder / CONFIG_FILE
        if not path.is_file():
            raise GistFormatError(
                f"{folder} has no {CONFIG_FILE}: it is no edit adapter; make one with `incomes adapt`"
            )
        try:
            config = json.loads(path.read_text())
            if config.get("format") == FORMAT:
                tensors = load_file(folder / TENSOR_FILE)
                return cls._of(config, unpacked(tensors))
        except (OSError, AttributeError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            raise GistFormatError(f"{folder}: damaged adapter: {error}; make it anew with `incomes adapt`") from error
        raise GistFormatError(
            f"{path}: adapter format {config.get('format')!r}, expected {FORMAT}; make it anew with `incomes adapt`"
        )

    @classmethod
    def for_base(cls, adapter_dir: Path, base_dir: Path) -> EditAdapter:
        """Read an adapter that is to serve the base in `base_dir`.

        Raises:
            GistFormatError: see `load`.
            FingerprintMismatch: it was made for another base.
        """
        adapter = cls.load(adapter_dir)
        found = base_fingerprint(base_dir)
        if found != adapter.base.fingerprint:
            raise FingerprintMismatch(
                f"the adapter in {adapter_dir} was made for base {adapter.base.name} ({adapter.base.fingerprint}), "
                f"{base_dir} is {found}; serve that base, or make an adapter for this one with `incomes adapt`"
            )
        return adapter

    @classmethod
    def _of(cls, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> EditAdapter:
        given = config["shape"]
        shape = GistShape(
            **{**given, "feature_layers": tuple(given["feature_layers"]), "layers": tuple(given["layers"])}
        )
        adapter = cls(
            base=BaseModel(**config["base"]),
            shape=shape,
            num_heads=config["num_heads"],
            template=PromptTemplate(**{name: tuple(ids) for name, ids in config["template"].items()}),
            max_edit_tokens=config["max_edit_tokens"],
            mean=tensors["mean"],
            scale=tensors["scale"],
            router=Router(shape.feature_dim, **config["router"]),
            verifier=Verifier(shape.feature_dim, len(shape.feature_layers), **config["verifier"]),
            judge=Judge(),
            codec=Codec(shape),
            reader=Reader(shape, config["num_heads"]),
            copier=Copier(latent_dim=shape.latent_dim, **config["copier"]),
            rules=RoutingRules(**config["rules"]),
        )
        adapter._check(tensors)
        for name, module in adapter._modules().items():
            own = {key.removeprefix(f"{name}."): t for key, t in tensors.items() if key.startswith(f"{name}.")}
            module.load_state_dict(own)
            module.eval().requires_grad_(False)
        return adapter

    def _check(self, tensors: dict[str, torch.Tensor]) -> None:
        """Raise ValueError where the configuration contradicts the tensors, or names something that this version does
        not know."""
        shape = self.shape
        if any(layer > min(shape.layers) for layer in shape.feature_layers):
            raise ValueError(f"feature layers {shape.feature_layers} lie above the first of layers {shape.layers}")
        for name in ("mean", "scale"):
            if tensors[name].shape != (shape.feature_dim,):
                raise ValueError(f"{name} has shape {tuple(tensors[name].shape)}, expected {(shape.feature_dim,)}")
        unknown = [key for key in tensors if key.split(".")[0] not in ("mean", "scale", *self._modules())]
        if unknown:
            raise ValueError(f"unknown tensors {unknown}")

    def _modules(self) -> dict[str, nn.Module]:
        return {
            "router": self.router,
            "verifier": self.verifier,
            "judge": self.judge,
            "codec": self.codec,
            "reader": self.reader,
            "copier": self.copier,
        }
