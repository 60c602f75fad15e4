"""Null values that depend on sizes alone, kept between runs: of ranks, a law knows no more of the data."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.core.artifact.streams import scratch_folder
from bntools.core.datasets.cache import cache_dir, keep_newest
from bntools.core.errors import BnError
from bntools.core.work.folder import digest_of_json
from bntools.tools.screen.outcome import Outcome
from bntools.tools.screen.settings import Settings

_FILES = 64
_VERSION = 1  # of the statistics: another number leaves old files unread


def canonical(outcome: Outcome) -> Outcome:
    """The outcome of as many rows, or of as large classes, that stands for all of them: rows in order."""
    if not outcome.classes:
        ranks = np.arange(len(outcome.codes))
        return Outcome(ranks, ranks.astype(np.float64))
    counts = -np.sort(-np.bincount(outcome.codes))
    codes = np.repeat(np.arange(len(counts)), counts)
    return Outcome(codes, codes.astype(np.float64), outcome.classes)


def kept(
    settings: Settings, outcome: Outcome, rounds: int, draw: Callable[[], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """`draw()`, or what it was when a run drew the same: read from the cache, and left there for the next.

    outcome: canonical. A cache that cannot be read or written costs the time, nothing else.
    """
    key: dict[str, Any] = {
        "version": _VERSION, "rounds": rounds, "seed": settings.seed, "n": len(outcome.codes),
        "classes": np.bincount(outcome.codes).tolist() if outcome.classes else None, "method": settings.method,
        "bandwidth": settings.bandwidth, "bins": settings.bins, "neighbours": settings.neighbours,
    }  # fmt: skip
    name = f"{digest_of_json(key)[:32]}.npy"
    with contextlib.suppress(OSError, ValueError, BnError):
        values = np.load(cache_dir("nulls") / name)
        if values.shape[:1] == (rounds,) and np.isfinite(values).all():
            return values
    values = draw()
    with contextlib.suppress(OSError, BnError):
        _keep(cache_dir("nulls") / name, values)
    return values


def _keep(path: Path, values: NDArray[np.float64]) -> None:
    with scratch_folder(path.parent, ".null.") as folder:
        np.save(folder / path.name, values)
        os.replace(folder / path.name, path)
    keep_newest(path.parent, _FILES)
