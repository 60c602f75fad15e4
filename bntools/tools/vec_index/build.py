"""Choose the map and the bytes, train, code, and measure on queries that were held out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from bntools.core.errors import FAILED, BnError, bad_input, usage
from bntools.core.methods.vector_index.exact import InMemory, Vectors, exact, exact_scores, recalls
from bntools.core.methods.vector_index.index import Floats, VectorIndex, prepare
from bntools.core.methods.vector_index.searching import search
from bntools.core.progress import Progress
from bntools.tools.vec_index import gauge, ways
from bntools.tools.vec_index.encoder import TILE, encode
from bntools.tools.vec_index.report import facts_of, standard_error
from bntools.tools.vec_index.settings import FEWEST_QUERIES, LEAST_BYTES, RERANK, Settings
from bntools.tools.vec_index.training import Scene, code_bytes, train

SAMPLE = 16384
"""Rows that codebooks are trained on: 64 a word."""
CELLS, CELLS_FROM = 256, 10_000
_TRIED = 20_000  # rows on which `auto` compares maps
K = 10


def build_index(base: Vectors, queries: Floats | None, settings: Settings, progress: Progress) -> VectorIndex:
    """An index of the rows of `base`, its map fitted to `queries` [m, D] where there are some.

    The facts of the index are the report of the command. Raises BnError: exit 2 for settings that do not fit the
    data, 3 for rows that cannot be indexed, 1 where no size keeps the recall asked for.
    """
    began = time.monotonic()
    check(settings, base.width, None if queries is None else len(queries))
    scene = survey(base, queries, settings, progress)
    settings = choose(scene, settings, progress)
    index, recall = _fit(scene, settings, progress)
    facts = {**facts_of(index, scene, settings, recall), **index.facts}
    facts["queries_learn"] = 0 if scene.learn is None else len(scene.learn)
    facts["seconds"] = round(time.monotonic() - began, 2)
    return replace(index, facts=facts)


def check(settings: Settings, width: int, queries: int | None) -> None:
    """Refuse settings that fit no data of this width (exit 2)."""
    if settings.method in ("leanvec-fw", "leanvec-es") and queries is None:
        raise usage(f"--method {settings.method} learns from queries", "--queries FILE")
    if settings.recall is not None and (queries is None or queries < FEWEST_QUERIES):
        have = "none" if queries is None else str(queries)
        raise usage(
            f"--recall needs {FEWEST_QUERIES} queries to hold some out, there are {have}", "--queries FILE"
        )
    most = 2 * width + 4
    if settings.bytes is not None and not LEAST_BYTES <= settings.bytes <= most:
        raise usage(f"--bytes {settings.bytes}: vectors of {width} coordinates take {LEAST_BYTES} to {most}")
    if settings.bytes is not None and settings.allots and code_bytes(settings, settings.bytes, 1 << 62) < 1:
        raise usage(f"--bytes {settings.bytes} leave no byte for the code beside factor, cell and norm")
    if settings.graph and not settings.allots:
        raise usage(f"--graph walks by --code vq or bits, not {settings.code}", "--code vq")
    if settings.dims is not None and not 1 <= settings.dims <= width:
        raise usage(f"--dims {settings.dims}: vectors have {width} coordinates", f"--dims {width} at most")


def survey(base: Vectors, queries: Floats | None, settings: Settings, progress: Progress) -> Scene:
    """One pass over the rows: second moments, mean, a sample; queries split; the exact answers for those held out."""
    random = np.random.default_rng(settings.seed)
    chosen = np.sort(random.choice(base.rows, min(SAMPLE, base.rows), replace=False))
    moments, total, sample = np.zeros((base.width, base.width)), np.zeros(base.width), []
    with progress("reading", base.rows) as advance:
        for start in range(0, base.rows, TILE):
            rows = base.read(start, min(start + TILE, base.rows))
            _check_rows(rows, start, settings.metric)
            rows = prepare(rows, settings.metric)
            moments += gauge.second_moments(rows) * len(rows)
            total += rows.sum(0, dtype=np.float64)
            low, high = np.searchsorted(chosen, (start, start + len(rows)))
            sample.append(rows[chosen[low:high] - start])
            advance(len(rows))
    learn = held = truth = None
    if queries is not None:
        learn = prepare(queries, settings.metric)
        if len(learn) >= FEWEST_QUERIES:
            order, count = random.permutation(len(learn)), min(len(learn) // 5, 1000)
            learn, held = learn[order[count:]], learn[order[:count]]
            truth = exact(base, held, min(K, base.rows), settings.metric)
    mean = (total / base.rows).astype(np.float32)
    return Scene(base, moments / base.rows, mean, np.concatenate(sample), learn, held, truth)


def _check_rows(rows: Floats, start: int, metric: str) -> None:
    finite = np.isfinite(rows).all(1)
    if not finite.all():
        raise bad_input(f"row {start + int(np.argmin(finite))} holds NaN or infinity", "leave such rows out")
    if metric == "cos":
        empty = ~rows.any(1)
        if empty.any():
            raise bad_input(
                f"row {start + int(np.argmax(empty))} is zero and has no direction", "--metric ip"
            )


def choose(scene: Scene, settings: Settings, progress: Progress) -> Settings:
    """Settings with the method and the bytes decided, by queries held out."""
    if settings.cells is None:
        wanted = settings.allots and scene.base.rows >= CELLS_FROM and (settings.bytes or 96) > 16
        settings = replace(settings, cells=CELLS if wanted else 0)
    if settings.method == "auto":
        settings = replace(settings, method=_better_map(scene, settings))
    if settings.recall is None:
        return settings
    if not settings.allots:
        raise usage(f"--recall chooses the bytes of --code vq or bits, not of {settings.code}", "--code vq")
    return replace(settings, bytes=_fewest_bytes(scene, settings, progress))


def _better_map(scene: Scene, settings: Settings) -> str:
    """sphere or leanvec-id: which has the higher recall on held-out queries, among a part of the rows."""
    if scene.learn is None:
        return "leanvec-id"
    if scene.held is None:
        return "sphere"
    random = np.random.default_rng((settings.seed, 2))
    part = scene.base
    if scene.base.rows > _TRIED:
        part = InMemory(_gather(scene.base, np.sort(random.choice(scene.base.rows, _TRIED, replace=False))))
    held = scene.held[:400]
    truth = exact(part, held, min(K, part.rows), settings.metric)
    small = scene._replace(base=part, held=held, truth=truth, sample=scene.sample[: SAMPLE // 2])
    trial = replace(settings, bytes=settings.bytes or 64, recall=None, second="none", cells=0)
    losses = {m: _measure(small, replace(trial, method=m)) for m in ("sphere", "leanvec-id")}
    return max(losses, key=lambda name: losses[name][1].mean())


def _gather(base: Vectors, rows: Any) -> Floats:
    """Chosen rows, ascending, tile by tile."""
    parts = []
    for start in range(0, base.rows, TILE):
        low, high = np.searchsorted(rows, (start, start + TILE))
        if low < high:
            parts.append(base.read(start, min(start + TILE, base.rows))[rows[low:high] - start])
    return np.concatenate(parts)


def _fewest_bytes(scene: Scene, settings: Settings, progress: Progress) -> int:
    """The smallest size of a ladder whose recall on held-out queries, less its standard error, is what was asked."""
    least = 8 + (4 if settings.metric == "l2" else 0)
    ladder = sorted({round(least * 1.12**i) for i in range(60) if least * 1.12**i < scene.base.width + 2})
    ladder.append(scene.base.width + 2 + (4 if settings.metric == "l2" else 0))
    low, high = 0, len(ladder)
    with progress("trying sizes", len(ladder).bit_length()) as advance:
        while low < high:
            middle = (low + high) // 2
            recall = _measure(scene, replace(settings, bytes=ladder[middle]))[1]
            enough = recall.mean() - standard_error(recall) >= (settings.recall or 0.0)
            low, high = (low, middle) if enough else (middle + 1, high)
            advance(1)
    if low == len(ladder):
        raise BnError(
            f"recall {settings.recall:g} is not reached with {ladder[-1]} bytes a vector",
            "--second lvq8 re-ranks by a finer copy", FAILED,
        )  # fmt: skip
    return ladder[low]


def _fit(scene: Scene, settings: Settings, progress: Progress) -> tuple[VectorIndex, Any]:
    with progress("coding", scene.base.rows) as advance:
        index, recall = _measure(scene, settings, advance)
    if settings.graph:
        index = ways.with_graph(index, scene, settings, progress)
        index, recall = ways.measured(index, scene, settings, recall)
    return index, recall


def _measure(
    scene: Scene, settings: Settings, advance: Callable[[int], None] = lambda count: None
) -> tuple[VectorIndex, Any]:
    """The index with these settings, and the recall of each held-out query (None without)."""
    index = encode(scene.base, train(scene, settings), threads=settings.threads, advance=advance)
    if scene.held is None or scene.truth is None:
        return index, None
    k = scene.truth.rows.shape[1]
    rerank = 0 if settings.second == "none" else min(settings.rerank or RERANK, scene.base.rows)
    hits = search(index, scene.held, k, rerank=rerank, threads=settings.threads)
    return index, recalls(
        hits.rows, scene.truth, exact_scores(scene.base, scene.held, hits.rows, settings.metric)
    )
