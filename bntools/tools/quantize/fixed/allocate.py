"""Bits and group size of every weight for a size of the whole: the least predicted error that fits."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from bntools.core.errors import usage
from bntools.core.importance.metric import INPUT_DAMPING
from bntools.core.packing import grouped
from bntools.core.progress import Step, no_step
from bntools.core.system.threads import in_order
from bntools.kernels.grouped.operations import dequantize
from bntools.tools.quantize.fixed import coded_grids
from bntools.tools.quantize.fixed.balance import balance
from bntools.tools.quantize.fixed.fisher import Moments
from bntools.tools.quantize.fixed.gptq import damped_factor
from bntools.tools.quantize.fixed.round_to_nearest import rounded
from bntools.tools.quantize.plan import Item, Task, spec_of
from bntools.tools.quantize.settings import BALANCE_STEPS, Grid, Settings

GROUPS = {0: (32, 48, 64, 96, 128, 256), 2: (12, 18, 24, 36, 48, 96), 3: (18, 24, 36, 48, 72, 128)}
"""Group sizes tried, by the bits of scales; of 4 bits as of 3."""
_ROWS = 48  # of a matrix, evenly spaced, stand for all of them
_BELOW, _ABOVE = 2, 2  # bits tried around the budget


class Option(NamedTuple):
    """One way to code a weight: its size, and the loss it is predicted to add."""

    grid: Grid
    nbytes: int
    loss: float


def choose(task: Task, moments: Moments | None, nbytes: int, step: Step = no_step) -> list[Item]:
    """The items with grids whose sizes sum to at most `nbytes`.

    Group sizes are chosen as well where `settings.free_groups`. A weight whose bits or group an override sets keeps
    them. Raises BnError (exit 2) when the fewest bits do not fit.
    """
    model, chosen = task.model, task.chosen
    weights = sum(model.entries[item.name].numel for item in chosen)
    bits = 8 * nbytes / max(weights, 1)
    tables = {}
    for name, options in in_order(
        lambda item: (item.name, predicted(task, item, moments, bits)), chosen,
        lambda item: 8 * model.entries[item.name].numel, 1 << 30,
    ):  # fmt: skip
        tables[name] = hull(options)
        step(1)
    grids = allocate(tables, nbytes)
    return [replace(item, grid=grids[item.name].grid) if item.grid else item for item in task.items]


def predicted(task: Task, item: Item, moments: Moments | None, bits: float) -> list[Option]:
    """The options of one weight with their losses: sum_ij r_i h_j e_ij^2 / 2, E the error of rounding to nearest.

    With moments r is the sensitivity of row i, and h_j 1 / U_jj^2 for GPTQ, whose error is then this sum, or H_jj.
    Without, h is 1 / c^2 of `balance`, and the loss is the number of weights times its share of sum_ij h_j w_ij^2:
    every weight counts alike (where every matrix did, the divergence was a sixth larger).
    """
    assert item.linear is not None
    assert item.grid is not None
    model, settings = task.model, task.settings
    w = model.tensor(item.name, torch.float32)
    w = w.flatten(0, -2) if w.ndim == 3 and not item.linear.transposed else w
    w = w.transpose(-1, -2).flatten(0, -2) if item.linear.transposed else w
    factors = grouped.factors(balance(w), BALANCE_STEPS)
    rows, importance, total = _metric(w, factors, settings.method, moments, item.name)
    index = torch.linspace(0, len(w) - 1, min(_ROWS, len(w))).round().long()
    sample, r = w[index].contiguous(), rows[index]
    r = r * (total / max(float(r.sum()), 1e-30) / 2)
    options = []
    for grid in _grids(item.grid, settings, bits, w.shape[1]):
        error = sample - _values(sample, importance, factors if grid.balance else None, grid, settings.search)
        loss = float(r @ (error.square() @ importance))
        options.append(Option(grid, spec_of(item, grid, model).nbytes, loss))
    return options


def _metric(
    w: Tensor, factors: Tensor, method: str, moments: Moments | None, name: str
) -> tuple[Tensor, Tensor, float]:
    """r [out], h [in], and the sum of r, which sampled rows stand for."""
    if moments is None or name not in moments.names:
        h = factors.square().reciprocal()
        energy = max(float((w.square() @ h).sum(dtype=torch.float64)), 1e-30)
        return torch.ones(len(w)), h * (w.numel() / energy), float(len(w))
    hessian, rows = moments.get(name)
    h = hessian.diagonal().clone()
    if method == "gptq":
        order = h.argsort(descending=True, stable=True)
        factor, _ = damped_factor(hessian, h <= 0, order, INPUT_DAMPING)
        h = h.clone()
        h[order] = factor.diagonal().square().reciprocal()
        h[hessian.diagonal() <= 0] = 0
    return rows, h, float(rows.sum(dtype=torch.float64))


def _grids(grid: Grid, settings: Settings, bits: float, inputs: int) -> list[Grid]:
    widths = GROUPS.get(grid.meta, GROUPS[3]) if settings.free_groups else (grid.group,)
    low = min(max(2, int(bits) - _BELOW), 8)
    sizes = range(low, min(8, int(bits) + _ABOVE) + 1)
    if grid.bits != settings.grid.bits:
        sizes = (grid.bits,)
    if grid.group != settings.grid.group:
        widths = (grid.group,)
    widths = [width for width in widths if width <= inputs] or [-1]
    return [replace(grid, bits=size, group=width) for size in sizes for width in widths]


def _values(sample: Tensor, importance: Tensor, factors: Tensor | None, grid: Grid, search: str) -> Tensor:
    """The sampled rows on their grids, groups along the inputs, which may have factors."""
    c = torch.ones_like(importance) if factors is None else factors
    x, h = sample / c, importance * c.square()
    if grid.meta:
        return coded_grids.by_rounding(x, h, replace(grid, dim="oc"))[1] * c
    return dequantize(rounded(x, grid, search=search, importance=h)[0]) * c


def hull(options: Iterable[Option]) -> list[Option]:
    """The options that are best for some price of a byte, smallest first: the lower convex hull of loss over size."""
    line: list[Option] = []
    for option in sorted(options, key=lambda one: (one.nbytes, one.loss)):
        if line and option.loss >= line[-1].loss:
            continue
        while len(line) > 1 and _slope(line[-2], line[-1]) <= _slope(line[-2], option):
            line.pop()
        line.append(option)
    return line


def _slope(small: Option, large: Option) -> float:
    """Loss saved a byte."""
    return (small.loss - large.loss) / max(large.nbytes - small.nbytes, 1)


def allocate(tables: Mapping[str, list[Option]], nbytes: int) -> dict[str, Option]:
    """One option a weight, by marginal loss a byte: from the smallest of each, the best step next, while it fits.

    tables: hulls. Optimal for the size reached but for the last steps, which are taken where they still fit.
    """
    taken = dict.fromkeys(tables, 0)
    size = sum(table[0].nbytes for table in tables.values())
    if size > nbytes:
        raise usage(
            f"the budget leaves {nbytes:,} bytes for weights that take {size:,} at the fewest bits",
            "a larger --budget, or --code entropy",
        )
    heap = [(-_slope(*table[:2]), name) for name, table in tables.items() if len(table) > 1]
    heapq.heapify(heap)
    while heap:
        _, name = heapq.heappop(heap)
        table, at = tables[name], taken[name]
        more = table[at + 1].nbytes - table[at].nbytes
        if size + more > nbytes:
            continue  # a smaller one of another weight may still fit
        size, taken[name] = size + more, at + 1
        if at + 2 < len(table):
            heapq.heappush(heap, (-_slope(*table[at + 1 : at + 3]), name))
    return {name: table[taken[name]] for name, table in tables.items()}
