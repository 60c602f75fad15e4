"""The pilot runs of a design: what each is, under which name its result is kept, and which part of a job makes it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import bad_input, usage
from bntools.core.work.folder import digest_of_json
from bntools.tools.data_mix.choose.design import maximin
from bntools.tools.data_mix.choose.simplex import Limits

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Pilot:
    """One run: weights by source, size and seed; trainer: what else decides its result."""

    weights: Mapping[str, float]
    n: int
    seed: int
    trainer: Mapping[str, Any]

    @property
    def key(self) -> str:
        """The name of its result: 24 hexadecimal digits of what decides it."""
        told = {"weights": dict(self.weights), "n": self.n, "seed": self.seed, "trainer": dict(self.trainer)}
        return digest_of_json(told)[:24]


def plan(
    names: Sequence[str], sizes: Sequence[int], runs: int, *, seed: int, trainer: Mapping[str, Any],
    limits: Limits | None = None,
) -> list[Pilot]:  # fmt: skip
    """`runs` mixtures by maximin, the same ones at every size with the same seed, mixture by mixture, small n first."""
    design = maximin(len(names), runs, limits)
    return [
        Pilot({name: round(float(w), 6) for name, w in zip(names, _sixth(p), strict=True)}, n, seed, trainer)
        for p in design
        for n in sorted(sizes)
    ]


def _sixth(p: Floats) -> Floats:
    """Weights to six decimals that add up to 1."""
    rounded = np.round(p, 6)
    rounded[np.argmax(rounded)] += 1 - rounded.sum()
    return rounded


class Kept:
    """Finished pilots in a folder, `pilots/KEY.json` each, whole or not at all; without a folder in memory."""

    def __init__(self, folder: str | None) -> None:
        self._memory: dict[str, dict[str, Any]] = {}
        self._folder = None if folder is None else Path(folder) / "pilots"
        if self._folder is not None:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise usage(f"cannot use --work {folder}: {error.strerror}", "name a folder you may write") from None

    @property
    def folder(self) -> Path | None:
        return self._folder

    def get(self, pilot: Pilot) -> dict[str, Any] | None:
        """The record of a finished pilot."""
        if self._folder is None:
            return self._memory.get(pilot.key)
        path = self._folder / f"{pilot.key}.json"
        try:
            record = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            raise bad_input(f"{path} is no record of a pilot", f"rm {path}, and run again") from None
        return record

    def put(self, pilot: Pilot, record: Mapping[str, Any]) -> None:
        """Keep a result, on disk when this returns."""
        if self._folder is None:
            self._memory[pilot.key] = dict(record)
            return
        path = self._folder / f"{pilot.key}.json"
        temporary = path.with_name(f".{pilot.key}.{os.getpid()}")
        with open(temporary, "w") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
