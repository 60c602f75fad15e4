"""From activations to dictionaries: measure, train, score on rows held out, and say what came of it."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import torch

from bntools.core.datasets.activations import Activations
from bntools.core.errors import bad_input
from bntools.core.methods.sparse_dictionary import Dictionary, Inference
from bntools.core.methods.sparse_scores import baselines, score, usage
from bntools.core.progress import Progress
from bntools.core.work.folder import Work, identity
from bntools.kernels.sparse.selection import Floats
from bntools.tools.sparse_code.batches import Batches, Cursor, Norm, lengths, measure
from bntools.tools.sparse_code.settings import Settings, validate
from bntools.tools.sparse_code.train import Point, Trainer, train

HOLDOUT_PART, HOLDOUT_ROWS = 10, 16_384
PASSES = 2
LARGE_ROWS, LARGE_BATCH = 10_000_000, 4096
SAVE_EVERY = 60.0
_CURVE_POINTS = 100


class Result(NamedTuple):
    """One dictionary and its report."""

    dictionary: Dictionary
    report: dict[str, Any]


class Keeper:
    """Keeps a run in a work folder, a unit that replaces the one before it; without a folder it keeps nothing."""

    def __init__(self, work: Work | None, every: float = SAVE_EVERY) -> None:
        self.work, self.every = work, every if work else 0.0
        self.saved: str | None = None

    def restore(self, trainers: list[Trainer]) -> tuple[int, Cursor]:
        units = sorted(self.work.folder.glob("step-*.unit.safetensors")) if self.work else []
        if not units or self.work is None:
            return 0, Cursor()
        self.saved = units[-1].name.removesuffix(".unit.safetensors")
        artifact, facts = self.work.load(self.saved)
        with artifact:
            for index, trainer in enumerate(trainers):
                prefix = f"{index}."
                names = [name for name in artifact.names() if name.startswith(prefix)]
                arrays = {name.removeprefix(prefix): artifact.tensor(name).numpy() for name in names}
                curve = [Point(*point) for point in facts["curves"][index]]
                trainer.restore(arrays, int(facts["done"]), curve)
        return int(facts["done"]), Cursor(*facts["cursor"])

    def close(self) -> None:
        if self.work is not None:
            self.work.close()

    def save(self, trainers: list[Trainer], done: int, cursor: Cursor) -> None:
        assert self.work is not None
        arrays = {
            f"{index}.{name}": torch.from_numpy(np.ascontiguousarray(array))
            for index, trainer in enumerate(trainers)
            for name, array in trainer.arrays().items()
        }
        unit = f"step-{done:09d}"
        facts = {
            "done": done,
            "cursor": list(cursor),
            "curves": [[list(p) for p in t.curve] for t in trainers],
        }
        self.work.save(unit, arrays, facts)
        if self.saved is not None and self.saved != unit:
            self.work.drop(self.saved)
        self.saved = unit


def fit(
    source: Activations, all_settings: list[Settings], *, threads: int, work: str | None, progress: Progress,
    save_every: float = SAVE_EVERY,
) -> list[Result]:  # fmt: skip
    """Train one dictionary for each of the settings, in one pass over the data; they differ in k alone.

    Raises BnError (exit 3) where rows are too few, not finite, or all equal; 2 where options do not fit the width.
    """
    settings = all_settings[0]
    for one in all_settings:
        validate(one)
        one.width(source.width, source.rows)
    held = (
        settings.holdout if settings.holdout is not None else min(source.rows // HOLDOUT_PART, HOLDOUT_ROWS)
    )
    rows = source.rows - held
    if rows < 2 * settings.k:
        raise bad_input(
            f"{source.label} has {source.rows} rows, {rows} to train on: fewer than 2 k",
            "more rows, or a smaller --k",
        )
    with progress("mean and scale", rows) as advance:
        norm = measure(
            source, rows, outliers=settings.outliers, center=settings.center, bad=settings.bad, step=advance
        )
    batches = Batches(source, norm, rows, settings.batch, settings.seed)
    tokens = settings.tokens or PASSES * norm.rows
    steps = max(1, tokens // min(settings.batch, norm.rows))
    first = next(iter(batches()))[1]
    m = settings.width(source.width, source.rows)
    trainers = [Trainer(one, m, first, threads) for one in all_settings]
    keeper, began = _keeper(source, all_settings, work, save_every), time.process_time()
    try:
        for _ in train(trainers, batches, steps, keeper=keeper, progress=progress):
            pass
    finally:
        keeper.close()
    seconds = time.process_time() - began
    ordinary, outlying = _held_out(source, rows, norm)
    results = []
    for trainer in trainers:
        facts = _facts(source, trainer, norm, steps * batches.batch)
        dictionary = trainer.finish(norm, batches, facts, threads)
        dictionary.facts["inference"] = Inference(settings.candidates, trainer.settings.k).facts()
        report = _report(dictionary, trainer, norm, (ordinary, outlying), threads)
        report["train"] |= {"steps": steps, "rows": steps * batches.batch, "cpu_seconds": round(seconds, 2)}
        results.append(Result(dictionary, report))
    return results


def _keeper(source: Activations, all_settings: list[Settings], work: str | None, every: float) -> Keeper:
    if work is None:
        return Keeper(None)
    ends = [
        float(v)
        for v in np.concatenate([source.read(0, 1)[0, :8], source.read(source.rows - 1, source.rows)[0, :8]])
    ]
    what = {"rows": source.rows, "width": source.width, "ends": ends, "facts": source.facts}
    known = identity("sparse-code", what, **asdict(all_settings[0]), ks=[one.k for one in all_settings])
    return Keeper(Work(work, known), every)


def _facts(source: Activations, trainer: Trainer, norm: Norm, tokens: int) -> dict[str, Any]:
    settings = trainer.settings
    known = {key: source.facts[key] for key in ("model", "sha256", "site", "layer") if key in source.facts}
    return {
        "method": settings.method, "k": settings.k, "m": trainer.m, "d": source.width, **known,
        "outliers": {"rows": norm.outliers, "limit": norm.limit, "times_median": settings.outliers},
        "tokens": tokens, "seed": settings.seed, "center": settings.center,
    }  # fmt: skip


def _held_out(source: Activations, rows: int, norm: Norm) -> tuple[Floats, Floats]:
    """Finite rows not trained on, the ordinary ones and the outliers; where none are held out, the last trained on."""
    start = rows if rows < source.rows else max(rows - HOLDOUT_ROWS, 0)
    x = source.read(start, source.rows)
    x = x[np.isfinite(x).all(1)]
    long = lengths(x) > norm.limit
    return x[~long], x[long]


def _report(
    dictionary: Dictionary, trainer: Trainer, norm: Norm, rows: tuple[Floats, Floats], threads: int
) -> dict[str, Any]:
    """The report of bntools-sparse-code(1)."""
    x, outliers = rows
    settings, curve = trainer.settings, trainer.curve
    report: dict[str, Any] = {
        "kind": "sparse-code", "method": settings.method, "k": settings.k, "latents": trainer.m,
        "width": dictionary.D.shape[1], "rows": {"train": norm.rows, "scored": len(x), "outliers": norm.outliers,
                                                 "bad": norm.bad},
        "inference": dictionary.inference.facts(),
    }  # fmt: skip
    if len(x) > 1:
        by_encoder, codes = score(dictionary, x, Inference(0, settings.k), threads)
        report["encoder"] = by_encoder
        if settings.candidates:
            report["pursuit"], codes = score(dictionary, x, dictionary.inference, threads)
        report |= usage(dictionary, codes)
        report["baseline"] = baselines(dictionary, x, settings.k, threads)
        l0 = by_encoder["l0"]["mean"]
        report["l0_off_target"] = bool(abs(l0 / settings.k - 1) > 0.1)
    if len(outliers):
        back = dictionary.decode(dictionary.encode(outliers, None, threads), threads)
        spread = np.square(outliers - dictionary.mean).sum()
        report["fvu_outliers"] = float(np.square(outliers - back).sum() / max(float(spread), 1e-30))
    every = max(1, len(curve) // _CURVE_POINTS)
    report["train"] = {
        "dead": trainer.dead, "fvu": curve[-1].fvu, "l0": curve[-1].l0,
        "curve": [{"step": p.step, "fvu": round(p.fvu, 5), "l0": round(p.l0, 3)} for p in curve[::every]],
    }  # fmt: skip
    return report
