"""Train one network by one method and weight, or all of them, and say how each does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bntools.core.errors import BnError
from bntools.core.information.bottleneck_regression import (
    BottleneckNetwork,
    BottleneckRegression,
    digest_of_rows,
    scores,
)
from bntools.core.training.loop import Schedule, descend
from bntools.kernels.information import differentiable
from bntools.tools.ib_analyze.regression.design import Rows
from bntools.tools.ib_analyze.regression.objectives import LOSSES, METHODS, STOCHASTIC, Weighing
from bntools.tools.ib_analyze.regression.settings import Regressing

_MOST = 2000


class Run(NamedTuple):
    """One trained network and its entry in the report."""

    model: BottleneckRegression
    entry: dict[str, Any]


def sweep(rows: Rows, settings: Regressing, advance: Callable[[int], None] = lambda count: None) -> list[Run]:
    """Every method at every weight, plain squared error once and first. `advance` is told the networks done."""
    runs: list[Run] = []
    for method, beta in plan(settings):
        model = train(rows, settings, method, beta=beta)
        entry = {
            "method": method, "beta": beta, "validation_rmse": _validation(model, rows),
            **scores(model, rows.x[rows.test], rows.y[rows.test]), "information": information(model, rows),
        }  # fmt: skip
        whole = runs[0].entry["information"] if runs else entry["information"]
        entry["compression"] = 1 - entry["information"] / whole if whole > 0 else 0.0
        runs.append(Run(model, entry))
        advance(1)
    return runs


def plan(settings: Regressing) -> list[tuple[str, float]]:
    """Methods and weights in the order they are trained."""
    return [(method, beta) for method in METHODS for beta in (settings.betas if method != "mse" else (0.0,))]


def train(rows: Rows, settings: Regressing, method: str, *, beta: float) -> BottleneckRegression:
    """A network trained on the rows for training. Raises BnError (exit 1) where the loss is no number any more."""
    model = _untrained(rows, settings, {"method": method, "beta": beta})
    x, y = model.inputs(rows.x[rows.train]), model.outcome(rows.y[rows.train])
    how, loss = _weighing(x, y, settings, beta=beta), LOSSES[method]
    stream = torch.Generator().manual_seed(settings.seed)

    def step(chosen: Tensor) -> Tensor:
        noise = None
        if method in STOCHASTIC:
            noise = torch.randn(len(chosen), settings.code, generator=stream)
        return loss(x[chosen], y[chosen], model.network(x[chosen], noise), how)

    parameters = list(model.network.parameters())
    schedule = Schedule(steps(len(x), settings), settings.rate, warm_up=0, last=1)
    try:
        descend(parameters, _batches(len(x), settings), step, schedule)
    except FloatingPointError as error:
        raise BnError(
            f"training of {method} at beta {beta:g} diverged: {error}", "a smaller --beta"
        ) from None
    model.network.eval()
    return model


def steps(count: int, settings: Regressing) -> int:
    return settings.epochs * math.ceil(count / settings.batch)


def _batches(count: int, settings: Regressing) -> Iterator[Tensor]:
    """Every row once an epoch, in batches of nearly equal size: a kernel estimate of a few rows is none."""
    order = np.random.default_rng([settings.seed, 2])
    for _ in range(settings.epochs):
        for part in np.array_split(order.permutation(count), math.ceil(count / settings.batch)):
            yield torch.from_numpy(part)


def _untrained(rows: Rows, settings: Regressing, which: dict[str, Any]) -> BottleneckRegression:
    x, y = rows.x[rows.train], rows.y[rows.train]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = BottleneckNetwork(x.shape[1], settings.code)
    spread = x.std(0)
    facts = {**asdict(settings), **which}
    return BottleneckRegression(
        network, rows.names, settings.target, x.mean(0), np.where(spread > 0, spread, 1.0), float(y.mean()),
        float(y.std()) or 1.0, rows.test, digest_of_rows(rows.x, rows.y), facts,
    )  # fmt: skip


def _weighing(x: Tensor, y: Tensor, settings: Regressing, *, beta: float) -> Weighing:
    if settings.width is not None:
        return Weighing(beta, settings.norm, settings.width, settings.width, settings.width)
    median = differentiable.median_width
    return Weighing(beta, settings.norm, float(median(x[:_MOST])), float(median(y[:_MOST])), None)


def _validation(model: BottleneckRegression, rows: Rows) -> float:
    chosen = rows.validation
    return scores(model, rows.x[chosen], rows.y[chosen], ())["rmse"]["mean"]


@torch.no_grad()
def information(model: BottleneckRegression, rows: Rows) -> float:
    """Normalised Cauchy-Schwarz information of input and code on test rows, kernels of median width: 0 to 1.

    One measure for all methods, whatever they were trained by.
    """
    x = model.inputs(rows.x[rows.test])[:_MOST].double()
    code = model.network(x.float()).mean.double()
    if float(code.std(0).max()) == 0:
        return 0.0
    median = differentiable.median_width
    return float(differentiable.normalized_cauchy_schwarz(x, code, (median(x), median(code))))
