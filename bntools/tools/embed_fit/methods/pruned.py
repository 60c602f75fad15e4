"""Tables with holes: magnitude pruning, PEP's learned threshold, DNIS's searched factors; the positions are counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bntools.core.methods.embedding.decode import gaps
from bntools.core.methods.embedding.stored import Arrays
from bntools.kernels.embedding.head import Head
from bntools.tools.embed_fit.lookups import Chunked, Ids
from bntools.tools.embed_fit.methods import plain
from bntools.tools.embed_fit.methods.fitting import Bench, Fitted, assemble, told
from bntools.tools.embed_fit.problem import Problem
from bntools.tools.embed_fit.settings import Settings
from bntools.tools.embed_fit.training import Rows, Trained, loss_of, predict, slope, train

Floats = NDArray[np.float32]
_FINE_TUNE, _SEARCH = 3, 6  # epochs at most


def mask_of(problem: Problem, scores: Floats, d: int, budget_numbers: float) -> Floats:
    """0/1 over the flat array of `row_table`: the largest scores whose numbers and gaps fit; a gap is a byte."""
    outside = _unseen(problem, d)
    order = np.argsort(-np.where(outside, -np.inf, np.abs(scores)), kind="stable")
    keep = int(min(budget_numbers / 1.25, len(scores) - outside.sum()))
    while keep > 0:
        mask = np.zeros(len(scores), np.float32)
        mask[order[:keep]] = 1
        size = keep + sum(len(gaps(np.flatnonzero(part))) for part in _fields(problem, mask, d)) / 4
        if size <= budget_numbers:
            return mask
        keep = min(keep - 1, int(keep * budget_numbers / size))
    return np.zeros(len(scores), np.float32)


def _fields(problem: Problem, flat: Floats, d: int) -> list[Floats]:
    result, at = [], 0
    for seen, _ in problem.sizes():
        result.append(flat[at : at + seen * d])
        at += (seen + 1) * d
    return result


def _unseen(problem: Problem, d: int) -> NDArray[np.bool_]:
    out = []
    for seen, _ in problem.sizes():
        out += [np.zeros(seen * d, bool), np.ones(d, bool)]
    return np.concatenate(out)


def finish(
    bench: Bench, method: str, budget: float, table: Chunked, start: tuple[Trained, Any, float], epochs: int
) -> Fitted:
    """Train the masked table on, and store what its mask leaves. start: a fit with the head, what was tried, prior."""
    problem, d = bench.problem, bench.settings.dim
    trained, tried, prior = start
    assert table.mask is not None
    table.flat *= table.mask
    table.restart()
    settings = replace(bench.training(), epochs=epochs)
    after = train(table, _copy(trained.head), (problem.train, problem.valid), prior, settings)
    arrays: Arrays = {}
    for f, mask, flat in zip(
        problem.fields, _fields(problem, table.mask, d), _fields(problem, table.flat, d), strict=True
    ):
        where = np.flatnonzero(mask)
        arrays |= {f"table.{f.name}": flat[where].copy(), f"gaps.{f.name}": gaps(where)}
    stored = assemble(
        bench,
        method,
        budget,
        (arrays, [{"form": "masked", "width": d} for _ in problem.fields], {}),
        after.head,
    )
    size = stored.nbytes()
    facts = told(after, tried)
    return Fitted(
        method,
        budget,
        stored,
        bench.output(after),
        after.loss,
        (size["embedding"] + size["index"]) / 4,
        facts,
    )


def _copy(head: Head) -> Head:
    return Head(head.kind, head.widths, parameters={n: p.clone() for n, p in head.parameters.items()})


def _fresh(bench: Bench) -> Chunked:
    table = plain.row_table(bench.problem, bench.settings.dim, bench.problem.seed).lookup
    assert isinstance(table, Chunked)
    return table


def fit_prune(bench: Bench, budget: float) -> Fitted | None:
    """The largest entries of the full table, trained on."""
    trained, _, tried = bench.full_table(bench.settings.dim)
    table = _fresh(bench)
    table.flat[:] = trained.lookup.flat
    table.mask = mask_of(bench.problem, table.flat, bench.settings.dim, _numbers(bench, budget))
    return finish(bench, "prune", budget, table, (trained, tried, trained.prior), _FINE_TUNE)


def _numbers(bench: Bench, budget: float) -> float:
    return plain.full_size(bench.problem, bench.settings) * budget


class Thresholded(Chunked):
    """e = sign(V) relu(|V| - sigmoid(s)) with a learned s (PEP, arXiv 2101.07577, eq. 5, one threshold for all)."""

    s, slope_of_s, moments = -6.0, 0.0, (0.0, 0.0)
    _raw: Tensor

    @property
    def threshold(self) -> float:
        return float(1 / (1 + np.exp(-self.s)))

    def forward(self, ids: Ids) -> Tensor:
        self._raw = super().forward(ids)
        return self._raw.sign() * (self._raw.abs() - self.threshold).clamp_min(0)

    def backward(self, g: Tensor) -> None:
        inside = self._raw.abs() > self.threshold
        g = g * inside
        self.slope_of_s -= float((g * self._raw.sign()).sum()) * self.threshold * (1 - self.threshold)
        super().backward(g)

    def step(self, decay: float, rate: float, step: int) -> None:
        super().step(decay, rate, step)
        m, v = self.moments
        m, v = 0.9 * m + 0.1 * self.slope_of_s, 0.999 * v + 0.001 * self.slope_of_s**2
        self.s -= rate * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
        self.moments, self.slope_of_s = (m, v), 0.0


def fit_pep(bench: Bench, budget: float) -> Fitted | None:
    """Learn the threshold, keep what is farthest above it, train again from the first weights under that mask."""
    problem, d = bench.problem, bench.settings.dim
    if "pep" not in bench.kept:
        base = _fresh(bench)

        def build() -> plain.Form:
            table = Thresholded(base.starts, len(base.flat), d, stored=base.stored, seed=problem.seed)
            table.flat[:] = base.flat
            return plain.Form(table, lambda: ({}, [], {}))

        bench.kept["pep"] = bench.fit(build, "pep")
    searched, _, tried = bench.kept["pep"]
    table = _fresh(bench)
    table.mask = mask_of(problem, searched.lookup.flat, d, _numbers(bench, budget))
    fresh = searched._replace(head=Head(bench.settings.model, table.widths, problem.seed))
    return finish(bench, "pep", budget, table, (fresh, tried, searched.prior), bench.settings.epochs)


class Scaled(Chunked):
    """e_i *= alpha of the value's block of frequency: alpha [blocks, d] (DNIS, arXiv 2006.04466)."""

    alpha: Tensor
    blocks: list[NDArray[np.int64]]
    _raw: list[Tensor]
    _where: list[Tensor]

    def forward(self, ids: Ids) -> Tensor:
        raw = super().forward(ids)
        d = self.c
        self._where = [torch.from_numpy(b[ids[:, t]]) for t, b in enumerate(self.blocks)]
        self._raw = list(raw.split(d, 1))
        return torch.cat([x * self.alpha[w] for x, w in zip(self._raw, self._where, strict=True)], 1)

    def backward(self, g: Tensor) -> None:
        parts = g.split(self.c, 1)
        super().backward(torch.cat([x * self.alpha[w] for x, w in zip(parts, self._where, strict=True)], 1))

    def slope_of_alpha(self, g: Tensor) -> Tensor:
        """Gradient by alpha of what `forward` gave last."""
        out = torch.zeros_like(self.alpha)
        for part, raw, where in zip(g.split(self.c, 1), self._raw, self._where, strict=True):
            out.index_add_(0, where, part * raw)
        return out


def frequency_blocks(problem: Problem, shares: tuple[float, ...]) -> list[NDArray[np.int64]]:
    """The block of each value, values of all fields sorted by their training counts; unseen ones in the last."""
    counts = np.concatenate([f.counts for f in problem.fields])
    order = np.argsort(-counts, kind="stable")
    block = np.empty(len(counts), np.int64)
    ends = np.round(np.cumsum(shares) / sum(shares) * len(counts)).astype(int)
    block[order] = np.searchsorted(ends, np.arange(len(counts)), side="right").clip(max=len(shares) - 1)
    out, at = [], 0
    for seen, every in problem.sizes():
        out.append(np.concatenate([block[at : at + seen], np.full(every - seen, len(shares) - 1)]))
        at += seen
    return out


def update_alpha(alpha: Tensor, g: Tensor, rate: float) -> Tensor:
    """One step on alpha: the gradient over its row's mean size, an L1 of 1e-5, clamped to 0..1."""
    g = g / (g.abs().mean(1, keepdim=True) + 1e-8) + 1e-5 * alpha.sign()
    return (alpha - rate * g).clamp_(0, 1)


def search(bench: Bench, settings: Settings) -> tuple[Chunked, Trained, Any]:
    """DNIS's search: warm start, then weights on training batches and alpha on half of the validation rows in turn;
    the other half stops it. Returns the table times alpha.
    """
    problem = bench.problem
    warm, _, tried = bench.full_table(settings.dim)
    base = _fresh(bench)
    table = Scaled(base.starts, len(base.flat), settings.dim, stored=base.stored, seed=0)
    table.flat[:], table.blocks = warm.lookup.flat, frequency_blocks(problem, settings.blocks)
    table.alpha = torch.ones(len(settings.blocks), settings.dim)
    half = len(problem.valid.y) // 2
    learn, stop = (
        Rows(problem.valid.ids[:half], problem.valid.y[:half]),
        Rows(problem.valid.ids[half:], problem.valid.y[half:]),
    )
    rng = np.random.default_rng([problem.seed, 11])
    head = _copy(warm.head)

    def after(step: int) -> None:
        rows = rng.integers(0, half, min(settings.batch, half))
        out = head.forward(table.forward(np.ascontiguousarray(learn.ids[rows])))
        g = head.backward(slope(out, learn.y[rows], problem.task))
        table.alpha = update_alpha(table.alpha, table.slope_of_alpha(g), settings.alpha_rate)

    best: tuple[float, Floats, Tensor] | None = None
    epoch = bench.training()
    for number in range(_SEARCH):
        _epoch(table, head, problem.train, (warm.prior, replace(epoch, seed=problem.seed + number)), after)
        loss = loss_of(stop.y, predict(table, head, stop.ids), problem.task)
        if best is not None and loss >= best[0]:
            break
        best = (loss, table.flat.copy(), table.alpha.clone())
    assert best is not None
    table.flat[:] = _times(problem, best[1], best[2].numpy(), table.blocks, settings.dim)
    return table, warm._replace(head=head), tried


def _epoch(
    table: Chunked, head: Head, rows: Rows, how: tuple[float, Any], after: Callable[[int], None]
) -> None:
    """One pass in which only the table learns by weights' gradients."""
    prior, settings = how
    order = np.random.default_rng(settings.seed).permutation(len(rows.y))
    for step, start in enumerate(range(0, len(order), settings.batch), 1):
        chosen = order[start : start + settings.batch]
        out = head.forward(table.forward(rows.ids[chosen]))
        table.backward(head.backward(slope(out, rows.y[chosen], settings.task)))
        table.step(prior / len(rows.y), settings.rate, step)
        after(step)


def _times(problem: Problem, flat: Floats, alpha: Floats, blocks: list[NDArray[np.int64]], d: int) -> Floats:
    out, at = flat.copy(), 0
    for t, (seen, _) in enumerate(problem.sizes()):
        part = out[at : at + seen * d].reshape(seen, d)
        part *= alpha[blocks[t][:seen]]
        at += (seen + 1) * d
    return out


def fit_dnis(bench: Bench, budget: float) -> Fitted | None:
    """Entries of alpha E below the size that leaves the budget are pruned; then up to 3 epochs under the prior."""
    if "dnis" not in bench.kept:
        bench.kept["dnis"] = search(bench, bench.settings)
    searched, warm, tried = bench.kept["dnis"]
    table = _fresh(bench)
    table.flat[:] = searched.flat
    table.mask = mask_of(bench.problem, table.flat, bench.settings.dim, _numbers(bench, budget))
    return finish(bench, "dnis", budget, table, (warm, tried, warm.prior), _FINE_TUNE)
