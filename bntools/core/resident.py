"""A stack in memory that grows and shrinks while it runs: only rows whose planes come or go are made anew."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bntools.core import entropy, modules, stack
from bntools.core.entropy import Coded
from bntools.core.errors import usage
from bntools.core.model import Model
from bntools.core.source import open_model
from bntools.core.stack import Planes
from bntools.core.threads import in_order

_IN_FLIGHT = 1 << 30


class Change(NamedTuple):
    """What one step took. nbytes: of the file in use after it. rows: of weights made anew."""

    nbytes: int
    rows: int
    seconds: float


class Resident:
    """The network of a stack at a budget, which `resize` changes without reading the base again.

    network: the transformers model, in `dtype` on the CPU, its weights those of `open_model(path, budget)` bit for
    bit after every step. Besides it the integer levels of the base stay in memory, one or two bytes a weight.
    Raises BnError as `open_model` does (exit 3 below the base).
    """

    def __init__(
        self, path: str | os.PathLike[str], budget: int | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        self.path, self.dtype = Path(path), dtype
        model = self._open(budget)
        self._names = [name for name, spec in model.packing.items() if isinstance(spec, stack.Spec)]
        self._coded = {name: self._levels(model, name) for name in self._names}
        self._tables = model.decoder.tables
        self.network: Any = model.build(dtype)
        self._parameter = modules.renamer(self.network)
        self._depth = {name: model.planes(name).depth for name in self._names}
        self.nbytes = model.store.nbytes()

    def _open(self, budget: int | None) -> Model:
        whole = self.path.stat().st_size
        return open_model(str(self.path), min(budget or whole, whole))

    @staticmethod
    def _levels(model: Model, name: str) -> Coded:
        """The base of a weight, its levels in a byte each where they fit."""
        spec = model.packing[name]
        assert isinstance(spec, stack.Spec)
        data = model.store.tensor(spec.part_names(name)[0]).numpy().tobytes()
        coded = model.decoder.coded(name, spec, data)
        if int(np.abs(coded.levels.astype(np.int32)).max(initial=0)) < 128:
            coded.levels = coded.levels.astype(np.int8)  # type: ignore[assignment]
        return coded

    def resize(self, budget: int) -> Change:
        """Use so many bytes of the file, more or fewer than before."""
        began = time.monotonic()
        model = self._open(budget)
        if [name for name, spec in model.packing.items() if isinstance(spec, stack.Spec)] != self._names:
            raise usage(f"{self.path} is no longer the stack it was", "open it anew")

        def work(name: str) -> tuple[str, Any, Tensor | None, Any]:
            planes = model.planes(name)
            changed = np.flatnonzero(planes.depth != self._depth[name])
            if not len(changed):
                return name, changed, None, planes.depth
            rows = stack.row_order(self._coded[name].row_scale)[changed]
            return name, rows, self._values(name, model, planes, changed, rows), planes.depth

        count = 0
        sizes = model.entries
        for name, rows, values, depth in in_order(
            work, self._names, lambda name: 8 * sizes[name].numel, _IN_FLIGHT
        ):
            if values is not None:
                self._place(model, name, torch.from_numpy(rows), values)
            self._depth[name] = depth
            count += len(rows)
        self.nbytes = model.store.nbytes()
        return Change(self.nbytes, count, time.monotonic() - began)

    def _values(self, name: str, model: Model, planes: Planes, ranks: Any, rows: Any) -> Tensor:
        """Some rows of a weight [in, rows]; ranks: their places in the order of the planes."""
        coded, spec = self._coded[name], model.packing[name]
        assert isinstance(spec, stack.Spec)
        some = Coded(
            np.ascontiguousarray(coded.levels[:, rows], np.int16), coded.row_scale[rows], coded.col_scale,
            coded.row_class[rows], coded.col_class,
        )  # fmt: skip
        add = Planes(planes.bits[:, ranks], planes.depth[ranks]).in_order()
        return torch.from_numpy(
            entropy.values(some, self._tables, spec.octave, lambda values: add(0, values))
        )

    @torch.no_grad()
    def _place(self, model: Model, name: str, rows: Tensor, values: Tensor) -> None:
        weight = self.network.get_parameter(self._parameter(name))
        spec = model.packing[name]
        assert isinstance(spec, stack.Spec)
        if spec.transposed:
            weight[:, rows] = values.to(weight.dtype)
        else:
            weight[rows] = values.T.to(weight.dtype)
