"""Arrays put away by name until a later phase needs them: in a --work folder, where a later run finds them, or not."""

from __future__ import annotations

import torch

from bntools.core.work.folder import Work
from bntools.core.work.spool import Array, Spool


class Shelf:
    """Groups of arrays by name, on disk: kept in `work` where there is one, else gone with the process.

    has: whether a group is there, also from an earlier run.
    """

    def __init__(self, work: Work | None) -> None:
        self._place: Work | Spool = work or Spool()

    def has(self, name: str) -> bool:
        return name in self._place if isinstance(self._place, Spool) else self._place.has(name)

    def put(self, name: str, arrays: list[Array]) -> None:
        if isinstance(self._place, Spool):
            self._place.put(name, arrays)
            return
        self._place.save(
            name, {str(index): torch.from_numpy(array) for index, array in enumerate(arrays)}, {}
        )

    def get(self, name: str) -> list[Array]:
        if isinstance(self._place, Spool):
            return self._place.get(name)
        unit, _ = self._place.load(name)
        with unit:
            return [unit.tensor(str(index)).numpy() for index in range(len(unit.names()))]
