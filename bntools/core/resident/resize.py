"""A stack in memory that grows and shrinks while it runs: only rows whose planes come or go are made anew."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bntools.core.architecture import linears
from bntools.core.errors import require, usage
from bntools.core.model.model import Model
from bntools.core.model.open import open_model
from bntools.core.packing import stack
from bntools.core.system.threads import ahead, in_order

_IN_FLIGHT = 1 << 30


class Change(NamedTuple):
    """What one step took. nbytes: of the file in use after it. rows: of weights that changed."""

    nbytes: int
    rows: int
    seconds: float


class Resident:
    """The network of a stack at a budget, which `resize` changes without reading the base again.

    network: the transformers model, in `dtype` on `device`, its weights those of `open_model(path, budget)` bit for
    bit after every step. Besides it the integer levels of the base stay in main memory, about half a byte a weight.

    packed: weights are not made at all. Linears and embeddings hold the levels of the base and the bits of the planes
    that are there, two a weight of a plane that is a trellis code, and multiply with them (`stacked_modules`), summing
    in float32 where the dense network sums in `dtype`; so memory follows the budget. What is in modules of other
    classes stays dense. On a GPU all of that is in its memory, and a step copies planes to it (Triton kernels, tested
    against the CPU but never run on a GPU).

    Raises BnError as `open_model` does (exit 3 below the base), for a GPU that torch does not see and for packed
    weights on a device that is neither a CPU nor a GPU of CUDA or ROCm (exit 2), or on a GPU without triton (exit 5).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        budget: int | None = None,
        dtype: torch.dtype = torch.float32,
        packed: bool = False,
        device: str = "cpu",
    ) -> None:
        self.path, self.dtype, self.device = Path(path), dtype, torch.device(device)
        _check(self.device, packed)
        model = self._open(budget)
        self._names = [name for name, spec in model.packing.items() if isinstance(spec, stack.StackSpec)]
        if not self._names:
            raise usage(f"{path} is no stack of planes", "bntools stack-compress --codec planes makes one")
        self._base: dict[str, stack.Base] = {}
        self._depth: dict[str, Any] = {}
        self._held: dict[str, Any] = {}

        def work(name: str) -> Any:
            base, planes = model.base(name), model.planes(name)
            self._base[name], self._depth[name] = base, planes.depth
            return planes.compact() if packed else base.dense(planes, dtype, model.packing[name].transposed)

        def nothing(name: str) -> Tensor:
            """Of the weight's shape, and no memory: it is replaced."""
            return torch.zeros((), dtype=dtype).expand(model.entries[name].shape)

        with ahead(work, self._names) as made:
            self.network: Any = model.build(dtype, made=nothing if packed else made)
            self._parameter = linears.renamer(self.network)
            for name in self._names if packed else ():
                self._hold(model, name, made(name))
        self.network.to(self.device)
        self.nbytes = model.store.nbytes()

    def _open(self, budget: int | None) -> Model:
        whole = self.path.stat().st_size
        return open_model(str(self.path), min(budget or whole, whole))

    def _hold(self, model: Model, name: str, planes: stack.Planes) -> None:
        """Have a weight stacked in the network, or dense where its module is of another class."""
        from bntools.core.resident import layers

        paths = layers.users(self.network, parameter := self._parameter(name))
        if paths:
            self._held[name] = layers.hold(self._base.pop(name), planes, self.device)
            return layers.replace(self.network, paths, self._held[name], self.dtype)
        dense = self._base[name].dense(planes, self.dtype, model.packing[name].transposed)
        self.network.get_parameter(parameter).data = dense
        return None

    @property
    def memory(self) -> int:
        """Bytes that weights take: those of the network, and what is held to change them."""
        dense = {parameter.data_ptr(): parameter.nbytes for parameter in self.network.parameters()}
        stacked = sum(held.nbytes for held in self._held.values())
        kept = sum(base.nbytes for base in self._base.values())
        return sum(dense.values()) + stacked + kept

    def resize(self, budget: int) -> Change:
        """Use so many bytes of the file, more or fewer than before."""
        began = time.monotonic()
        model = self._open(budget)
        if [name for name, spec in model.packing.items() if isinstance(spec, stack.StackSpec)] != self._names:
            raise usage(f"{self.path} is no longer the stack it was", "open it anew")

        def work(name: str) -> int:
            planes = model.planes(name)
            ranks = np.flatnonzero(planes.depth != self._depth[name])
            if len(ranks) and name in self._held:
                self._held[name].change(planes)
            elif len(ranks):
                self._place(name, planes, ranks, model.packing[name].transposed)
            self._depth[name] = planes.depth
            return len(ranks)

        largest = sorted(self._names, key=lambda name: -model.entries[name].numel)
        count = sum(in_order(work, largest, lambda name: 4 * model.entries[name].numel, _IN_FLIGHT))
        self.nbytes = model.store.nbytes()
        return Change(self.nbytes, count, time.monotonic() - began)

    @torch.no_grad()
    def _place(self, name: str, planes: stack.Planes, ranks: Any, transposed: bool) -> None:
        """Give the rows of these ranks what the planes make of them."""
        from bntools.kernels.stack import (
            weight as stack_weight,  # numba, which another thread imports beside transformers
        )

        base = self._base[name]
        changed, weight = base.with_planes(planes), self.network.get_parameter(self._parameter(name))
        size = max(1, stack.CHUNK // base.levels.cols)
        for start in range(0, len(ranks), size):
            rows = base.order[ranks[start : start + size]]
            values = torch.from_numpy(stack_weight.rows(changed, rows)).to(weight.dtype).to(weight.device)
            place = torch.from_numpy(rows).to(weight.device)
            if transposed:
                weight[:, place] = values.T
            else:
                weight[place] = values


def _check(device: torch.device, packed: bool) -> None:
    """Before anything is read: whether the network can be on a device."""
    if packed and device.type not in ("cpu", "cuda"):
        raise usage(f"packed weights cannot be on {device}", "packed=False, or device='cpu' or 'cuda'")
    if packed and device.type == "cuda":
        require("triton", "gpu")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise usage(f"device {device}: torch sees no GPU", "device='cpu'")
