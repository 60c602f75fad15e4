"""Arrays put away by name until a later phase needs them: in a --work folder, where a later run finds them, or not."""

from __future__ import annotations

import torch

from bntools.core.spool import Array, Spool
from bntools.core.work import Work


class Shelf:
    """Groups of arrays by name, on disk: kept in `work` where there is one, else gone with the process.

    has: whether a group is there, also from an earlier run.
    """

    def __init__(self, work: Work | None) -> None:
        self._work, self._spool = work, Spool() if work is None else None

    def has(self, name: str) -> bool:
        return self._work.has(name) if self._work else name in self._spool  # type: ignore[operator]

    def put(self, name: str, arrays: list[Array]) -> None:
        if self._work is None:
            assert self._spool is not None
            self._spool.put(name, arrays)
            return
        self._work.save(name, {str(index): torch.from_numpy(array) for index, array in enumerate(arrays)}, {})

    def get(self, name: str) -> list[Array]:
        if self._work is None:
            assert self._spool is not None
            return self._spool.get(name)
        unit, _ = self._work.load(name)
        with unit:
            return [unit.tensor(str(index)).numpy() for index in range(len(unit.names()))]
