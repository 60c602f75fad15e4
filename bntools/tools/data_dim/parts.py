"""Neighbours of the measured points found apart, and joined."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import bad_input
from bntools.core.progress import Progress
from bntools.core.work import array_parts
from bntools.core.work.folder import identity
from bntools.core.work.shards import Shard
from bntools.kernels.neighbours.exact import Neighbours, nearest
from bntools.tools.data_dim.dimension import FARTHEST, Settings, chosen_rows, rounding
from bntools.tools.data_dim.points import Cloud, clean

KIND = "data-dim-part"


class Points:
    """The points of a run and what decides their neighbours."""

    def __init__(self, array: NDArray[Any], precision: float | None, settings: Settings) -> None:
        self.cloud: Cloud = clean(array, rounding(array) if precision is None else precision)
        self.settings = settings
        points = self.cloud.points
        self.rows = chosen_rows(len(points), settings, np.random.default_rng(settings.seed))
        digest = hashlib.sha256(np.ascontiguousarray(points).tobytes()).hexdigest()
        self.identity = identity("data-dim", {"points": digest}, queries=settings.queries, seed=settings.seed)

    def write(self, shard: Shard, target: str, force: bool, progress: Progress) -> dict[str, Any] | None:
        """Find and write the neighbours of part I of N of the measured points; returns the manifest."""
        share = shard.of([1] * len(self.rows))
        mine = self.rows[share.start : share.stop]
        with progress("neighbours", len(mine)) as advance:
            points = self.cloud.points
            neighbours = nearest(points, mine, min(FARTHEST, len(points) - 1), self.settings.threads, advance)
        return array_parts.write(
            target, KIND, shard, identity=self.identity, arrays=neighbours._asdict(), force=force
        )

    def read(self, paths: Sequence[str]) -> Neighbours:
        """Those of all parts. Raises BnError (exit 3) where some are missing."""
        parts = array_parts.read(paths, KIND, self.identity)
        neighbours = Neighbours(array_parts.joined(parts, "distances"), array_parts.joined(parts, "indices"))
        if len(neighbours.distances) != len(self.rows):
            raise bad_input(f"{len(neighbours.distances)} neighbourhoods in the parts, not {len(self.rows)}")
        return neighbours
