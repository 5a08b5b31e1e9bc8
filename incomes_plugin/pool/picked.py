"""What requests read and copy of picked edits, on the device. The most recently used ones stay there for the next
request."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from weakref import WeakValueDictionary

import torch

from incomes_plugin.gist.edit import EditKey
from incomes_plugin.gist.types import Gist
from incomes_plugin.selection.codec import Codec
from incomes_plugin.selection.copying import Copier


@dataclass(frozen=True, eq=False)
class PickedEdit:
    """What a request reads of one edit of E tokens, whose spelling has S.

    Attributes:
        edit: edit version.
        keys: `[L', K, E, D]` in the compute dtype, on the device, before rotary embedding.
        values: `[L', K, E, D]`.
        copy_keys: `[S, C]` float32, k of copying; on every rank those of the whole latents.
        spelled: `[S, 6]` int64, the table of the spelling.
    """

    edit: EditKey
    keys: torch.Tensor
    values: torch.Tensor
    copy_keys: torch.Tensor
    spelled: torch.Tensor

    @property
    def num_bytes(self) -> int:
        """Bytes on the device."""
        return sum(part.nbytes for part in (self.keys, self.values, self.copy_keys, self.spelled))


class PickedCache:
    """Picked edits by serial number of their gist. An edit that a request still holds is found here, so it is never
    copied to the device twice.

    Args:
        codec, copier: what is read of a gist, and what is copied; their tensors are on `device`.
        capacity_bytes: limit for the edits that stay although no request holds them.
        kv_heads: those of this rank; a gist has all.
    """

    def __init__(
        self,
        codec: Codec,
        copier: Copier,
        capacity_bytes: int,
        device: torch.device,
        dtype: torch.dtype,
        kv_heads: slice,
    ) -> None:
        self._codec = codec
        self._copier = copier
        self._capacity_bytes = capacity_bytes
        self._device = device
        self._dtype = dtype
        self._kv_heads = kv_heads
        self._recent: OrderedDict[int, PickedEdit] = OrderedDict()
        self._recent_bytes = 0
        self._living: WeakValueDictionary[int, PickedEdit] = WeakValueDictionary()

    @property
    def used_bytes(self) -> int:
        """Bytes on the device, edits that requests hold included."""
        return sum(picked.num_bytes for picked in list(self._living.values()))

    def get(self, serial: int, gist: Gist) -> PickedEdit:
        """The edit on the device. It counts as the most recently used one."""
        picked = self._living.get(serial)
        if picked is None:
            picked = self._decoded(gist)
            self._living[serial] = picked
        self._keep(serial, picked)
        return picked

    def drop(self, serial: int) -> None:
        """Forget an edit that has left the pool. Requests that hold it keep it."""
        picked = self._recent.pop(serial, None)
        if picked is not None:
            self._recent_bytes -= picked.num_bytes

    @torch.inference_mode()
    def _decoded(self, gist: Gist) -> PickedEdit:
        latents, spelling = gist.latents.unpack(self._device), gist.spelling
        keys, values = self._codec.decode(latents)
        own_keys, own_values = (part[:, self._kv_heads].to(self._dtype).contiguous() for part in (keys, values))
        table = spelling.table().to(self._device)
        return PickedEdit(gist.edit, own_keys, own_values, self._copier.keys_of(latents, spelling), table)

    def _keep(self, serial: int, picked: PickedEdit) -> None:
        if serial not in self._recent:
            self._recent[serial] = picked
            self._recent_bytes += picked.num_bytes
        self._recent.move_to_end(serial)
        while self._recent_bytes > self._capacity_bytes:
            self.drop(next(iter(self._recent)))
