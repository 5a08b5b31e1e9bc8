"""The edit adapter: what makes a checkpoint edit-capable. Written by training, read by the engine and the reference.

`edit_adapter.json` holds the shape, the gist token ids and the scale rule; `edit_adapter.safetensors` holds
    zero_keys  [L', K, D]      learned zero-gist key of each gist layer (its value is 0)
    query_map  [L', H, D, D]   A_q, applied to the un-rotated query          (optional: absent = identity)
    key_map    [L', K, D, D]   A_k, applied when a gist is captured          (optional)
    value_map  [L', K, D, D]   A_v, applied when a gist is captured          (optional)
    route_*                    tensors of `selection/routing.py`'s Router    (optional: absent = dense selection)
    keep_*                     tensors of `selection/keeping.py`'s KeepRule  (optional: absent = all gists are stored)
all float32; a map multiplies from the right: q'[d2] = sum_d1 q[d1] * A[d1, d2].
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from incomes_plugin.errors import GistFormatError
from incomes_plugin.gist.types import GistShape
from incomes_plugin.selection.keeping import TENSORS as KEEP_TENSORS
from incomes_plugin.selection.keeping import KeepRule
from incomes_plugin.selection.routing import CORRECTION, TENSORS, Router
from incomes_plugin.selection.scale import ScaleRule, scale_rule

FORMAT = 3
CONFIG_FILE = "edit_adapter.json"
TENSOR_FILE = "edit_adapter.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_OWN_TENSORS = {"zero_keys", "query_map", "key_map", "value_map"}


@dataclass(frozen=True)
class EditAdapter:
    """Everything beside the checkpoint that capture and selection need.

    Attributes:
        shape: gist layers, largest G, K, D.
        gist_token_ids: `max_gists` vocabulary ids; an edit with G gists is `text ids + gist_token_ids[:G]`.
        bos_token_id: id put in front of the edit text, or None.
        max_edit_tokens: longest edit text in tokens (without BOS and gist tokens).
        scale: the scale rule c_N.
        zero_keys: `[L', K, D]` float32.
        query_map, key_map, value_map: see the module docstring; None = identity.
        router: picks edits before entries are read; None = dense selection over all entries.
        keep: which gists of a capture are stored; None = all.
        rotary_query: queries meet the gist keys after the rotary embedding, as in the paper; the engine refuses it.
    """

    shape: GistShape
    gist_token_ids: tuple[int, ...]
    bos_token_id: int | None
    max_edit_tokens: int
    scale: ScaleRule
    zero_keys: torch.Tensor
    query_map: torch.Tensor | None = None
    key_map: torch.Tensor | None = None
    value_map: torch.Tensor | None = None
    router: Router | None = None
    keep: KeepRule | None = None
    rotary_query: bool = False

    @property
    def selection(self) -> str:
        """How tokens choose: `routed`, `dense`, or `paper` (dense with rotary queries)."""
        if self.router is not None:
            return "routed"
        return "paper" if self.rotary_query else "dense"

    def num_gists(self, num_text_tokens: int) -> int:
        """G for an edit text of `num_text_tokens` tokens: one gist a token up to `max_gists`."""
        return max(1, min(num_text_tokens, self.shape.max_gists))

    def capture_ids(self, text_ids: list[int]) -> list[int]:
        """Token ids of the capture prompt `[BOS] + text + <GIST>*G`; its last G positions are the gists."""
        bos = [] if self.bos_token_id is None else [self.bos_token_id]
        return bos + text_ids + list(self.gist_token_ids[: self.num_gists(len(text_ids))])

    def save(self, model_dir: Path) -> None:
        """Write both adapter files beside the checkpoint, which is there already."""
        config = {
            "format": FORMAT,
            "shape": asdict(self.shape),
            "gist_token_ids": list(self.gist_token_ids),
            "bos_token_id": self.bos_token_id,
            "max_edit_tokens": self.max_edit_tokens,
            "scale": asdict(self.scale),
            "selection": self.selection,
            "rotary_query": self.rotary_query,
        }
        if self.router is not None:
            config["routing"] = {
                "top_k": self.router.top_k, "threshold": self.router.threshold, "growth": self.router.growth,
                "recency": self.router.recency,
            }  # fmt: skip
        if self.keep is not None:
            config["keep"] = {"budget": self.keep.budget}
        (model_dir / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
        maps = {"query_map": self.query_map, "key_map": self.key_map, "value_map": self.value_map}
        tensors = {"zero_keys": self.zero_keys} | {k: v for k, v in maps.items() if v is not None}
        if self.router is not None:
            tensors |= {f"route_{name}": tensor for name, tensor in self.router.tensors().items()}
        if self.keep is not None:
            tensors |= {f"keep_{name}": getattr(self.keep, name) for name in KEEP_TENSORS}
        save_file({k: v.detach().float().contiguous().cpu() for k, v in tensors.items()}, model_dir / TENSOR_FILE)
        name_checkpoint_files(model_dir)

    @classmethod
    def load(cls, model_dir: Path) -> EditAdapter:
        """Read the adapter of an edit-capable model.

        Raises:
            GistFormatError: no adapter, another format, or tensors that do not fit the shape.
        """
        path = model_dir / CONFIG_FILE
        if not path.is_file():
            raise GistFormatError(
                f"{model_dir} has no {CONFIG_FILE}: the model is not edit-capable; see `incomes train`"
            )
        config = json.loads(path.read_text())
        if config.get("format") != FORMAT:
            raise GistFormatError(f"{path}: adapter format {config.get('format')!r}, expected {FORMAT}")
        shape = GistShape(**{**config["shape"], "layers": tuple(config["shape"]["layers"])})
        tensors = load_file(model_dir / TENSOR_FILE)
        expected = (len(shape.layers), shape.num_kv_heads, shape.head_dim)
        if tuple(tensors["zero_keys"].shape) != expected:
            raise GistFormatError(f"{model_dir}: zero_keys {tuple(tensors['zero_keys'].shape)}, expected {expected}")
        if len(config["gist_token_ids"]) != shape.max_gists:
            raise GistFormatError(f"{path}: {len(config['gist_token_ids'])} gist tokens, expected {shape.max_gists}")
        router = None
        if "routing" in config:
            own = TENSORS + tuple(name for name in CORRECTION if f"route_{name}" in tensors)
            router = Router(**{n: tensors.pop(f"route_{n}") for n in own}, **config["routing"])  # type: ignore[arg-type]
            _check_router(router, shape, model_dir)
        keep = None
        if "keep" in config:
            keep = KeepRule(**{n: tensors.pop(f"keep_{n}") for n in KEEP_TENSORS}, **config["keep"])  # type: ignore[arg-type]
            _check_keep(keep, shape, model_dir)
        if unknown := set(tensors) - _OWN_TENSORS:
            raise GistFormatError(f"{model_dir}: {TENSOR_FILE} holds {sorted(unknown)}, unknown to this format")
        return cls(
            shape=shape,
            gist_token_ids=tuple(config["gist_token_ids"]),
            bos_token_id=config["bos_token_id"],
            max_edit_tokens=config["max_edit_tokens"],
            scale=scale_rule(config["scale"]),
            router=router,
            keep=keep,
            rotary_query=config.get("rotary_query", False),
            **tensors,
        )


def _check_router(router: Router, shape: GistShape, model_dir: Path) -> None:
    width = shape.num_kv_heads * shape.head_dim
    if router.query.shape[-1] != width or tuple(router.zero.shape) != (width,):
        raise GistFormatError(
            f"{model_dir}: route_query {tuple(router.query.shape)} and route_zero {tuple(router.zero.shape)}, "
            f"expected a last dimension of {width}"
        )
    parts = router.hidden, router.hidden_bias, router.correction
    shapes = tuple(None if part is None else tuple(part.shape) for part in parts)
    hidden = shapes[1][0] if shapes[1] else 0
    if shapes not in ((None, None, None), ((len(router.query), hidden), (hidden,), (hidden, width))):
        raise GistFormatError(f"{model_dir}: route_hidden, route_hidden_bias and route_correction {shapes} do not fit")


def _check_keep(keep: KeepRule, shape: GistShape, model_dir: Path) -> None:
    width = shape.num_kv_heads * shape.head_dim
    if tuple(keep.weight.shape) != (width,):
        raise GistFormatError(f"{model_dir}: keep_weight {tuple(keep.weight.shape)}, expected ({width},)")
    if keep.budget is not None and keep.budget < 1:
        raise GistFormatError(f"{model_dir}: an edit keeps one gist at least, the budget is {keep.budget}")


def name_checkpoint_files(model_dir: Path) -> None:
    """Give a checkpoint without an index one: else vLLM loads every *.safetensors file as weights, the adapter too."""
    index = model_dir / INDEX_FILE
    if index.exists():
        return
    weight_map: dict[str, str] = {}
    for path in sorted(model_dir.glob("model*.safetensors")):
        with safe_open(path, framework="pt") as file:
            weight_map |= dict.fromkeys(file.keys(), path.name)
    if weight_map:
        index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}, indent=1) + "\n")
