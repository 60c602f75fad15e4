"""Columns scored apart and joined: what a part hands on is what the pass keeps of its columns."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from bntools.core.datasets.tables import Table
from bntools.core.errors import bad_input
from bntools.core.progress import Progress
from bntools.core.work import array_parts
from bntools.core.work.folder import identity
from bntools.core.work.shards import Shard
from bntools.tools.screen.run import Screening, begin
from bntools.tools.screen.scoring.score import Scored
from bntools.tools.screen.settings import Settings

KIND = "screen-part"


def write(
    table: Table, settings: Settings, shard: Shard, place: tuple[str, bool], progress: Progress
) -> dict[str, Any] | None:
    """Score part I of N of the columns and write what is known of them; returns the manifest."""
    sweep = begin(table, settings)
    sweep.run(table, progress, shard.of([1] * len(table)))
    arrays = {"positions": np.concatenate([*sweep.positions, np.empty(0, np.int64)])}
    for index, name in enumerate(Scored._fields):
        arrays[name] = np.concatenate([part[0][index] for part in sweep.parts] or [np.empty(0)])
    arrays["linear"] = np.concatenate([part[1] for part in sweep.parts] or [np.empty(0)])
    arrays["shadow"] = np.concatenate([part[2] for part in sweep.parts] or [np.empty(0)])
    if sweep.best:
        arrays["best_keys"], arrays["best_positions"], arrays["best_values"] = sweep.merged()
    output, force = place
    told = _identity(table, settings)
    return array_parts.write(output, KIND, shard, identity=told, arrays=arrays, force=force)


def read(paths: Sequence[str], table: Table, settings: Settings) -> Screening:
    """What the parts make together: the screening of all columns. Raises BnError (exit 3) where some are missing."""
    sweep = begin(table, settings)
    for part in array_parts.read(paths, KIND, _identity(table, settings)):
        try:
            scored = Scored(*(part[name] for name in Scored._fields))
            if len(part["positions"]):
                sweep.positions.append(part["positions"])
                sweep.parts.append((scored, part["linear"], part["shadow"]))
                sweep.best.append((part["best_keys"], part["best_positions"], part["best_values"]))
        except KeyError as error:
            raise bad_input(f"a part holds no {error}", "make it again") from None
    return sweep.finish()


def _identity(table: Table, settings: Settings) -> dict[str, Any]:
    """The outcome's bytes, the names of the columns, and what decides a score; threads do not."""
    digest = hashlib.sha256("\0".join(table.names).encode("utf-8", "replace"))
    digest.update(repr(table.column(settings.target).tolist()).encode())
    decides = {name: value for name, value in asdict(settings).items() if name != "threads"}
    return identity("screen", {"columns": digest.hexdigest(), "rows": table.rows}, settings=decides)
