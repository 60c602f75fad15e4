"""A lower bound of mutual information by a trained critic that starts at a fitted copula, on rows it has not seen.

The critic is ln c(x, y) + g(x, y): the pointwise information of the t copula, and a network whose last layer begins at
zero. So the first bound is the copula's own, and training counts only where it does better on rows kept back.
"""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bntools.core.information import copula

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

FOLDS = 5
_VALIDATION = 0.15
_UNITS, _BATCH, _RATE = 128, 256, 1e-3
_SHUFFLES, _SHUFFLES_SCORED = 2, 16
_LOOKS = 15
"""How often in a training the validation rows are asked whether it is still getting better."""


class Critique(NamedTuple):
    """value: mean over folds of the bound on a fold's rows, in nats; error: its standard error over the folds.

    start: the same bound of the copula alone; gain, gain_error: of training, fold by fold.
    """

    value: float
    error: float
    start: float
    gain: float
    gain_error: float


def critique(x: Floats, y: Floats, seed: int = 0, steps: int = 1500) -> Critique:
    """The bound of Donsker and Varadhan on x [N, dx], y [N, dy], cross-fitted over 5 folds; at least 100 rows.

    Each fold is scored by a critic trained on the others by the Jensen-Shannon loss, stopped where 15 % of these, kept
    back, say so. Its expectation is at most the mutual information, but for the error of the logarithm of a mean.
    """
    levels = copula.ranks(x), copula.ranks(y)
    order = np.random.default_rng([seed, 3]).permutation(len(x))
    values, starts = [], []
    for number, fold in enumerate(np.array_split(order, FOLDS)):
        rest = np.setdiff1d(order, fold, assume_unique=True)
        critic = _Critic(levels, copula.fit(x[rest], y[rest]))
        rng = np.random.default_rng([seed, 4, number])
        network = _train(critic, rng.permutation(rest), rng, steps)
        scored = np.random.default_rng([seed, 5, number])
        starts.append(critic.bound(None, fold, copy.deepcopy(scored)))
        values.append(critic.bound(network, fold, scored))
    gains = np.array(values) - starts
    return Critique(
        float(np.mean(values)), _standard_error(np.array(values)), float(np.mean(starts)), float(gains.mean()),
        _standard_error(gains),
    )  # fmt: skip


class _Critic:
    """The copula's pointwise information and what a network adds, at any pairing of rows."""

    def __init__(self, levels: tuple[Floats, Floats], model: copula.Copula) -> None:
        self.levels, self.model = levels, model
        self.scores = [torch.from_numpy(copula.quantiles(part, math.inf)).float() for part in levels]

    def __call__(self, network: nn.Module | None, rows: Indices, partners: Indices) -> Tensor:
        pairs = np.hstack([self.levels[0][rows], self.levels[1][partners]])
        known = torch.from_numpy(copula.pointwise_at(self.model, pairs)).float()
        if network is None:
            return known
        inputs = torch.cat([self.scores[0][rows], self.scores[1][partners]], 1)
        return known + network(inputs)[:, 0]

    @torch.no_grad()
    def bound(self, network: nn.Module | None, rows: Indices, rng: np.random.Generator) -> float:
        """mean f(x_i, y_i) - ln mean exp f(x_i, y_j) over some shuffles of the rows (Donsker and Varadhan 1983)."""
        joint = float(self(network, rows, rows).double().mean())
        apart = [self(network, rows, rng.permutation(rows)).double() for _ in range(_SHUFFLES_SCORED)]
        return joint - float(torch.logsumexp(torch.cat(apart), 0)) + math.log(_SHUFFLES_SCORED * len(rows))


def _train(critic: _Critic, rows: Indices, rng: np.random.Generator, steps: int) -> nn.Module | None:
    """The network of the best bound on the validation rows, None where none beats the copula."""
    kept = round(_VALIDATION * len(rows))
    validation, train = rows[:kept], rows[kept:]
    network = _network(sum(part.shape[1] for part in critic.levels), int(rng.integers(1 << 31)))
    optimizer = torch.optim.Adam(network.parameters(), _RATE)
    look = rng.integers(1 << 31)
    best, chosen = critic.bound(None, validation, np.random.default_rng(look)), None
    for step in range(1, steps + 1):
        batch = rng.choice(train, min(_BATCH, len(train)), replace=False)
        apart = [critic(network, batch, rng.permutation(batch)) for _ in range(_SHUFFLES)]
        loss = _softplus(-critic(network, batch, batch)) + _softplus(torch.cat(apart))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % max(1, steps // _LOOKS) == 0:
            value = critic.bound(network, validation, np.random.default_rng(look))
            if value > best:
                best, chosen = value, copy.deepcopy(network)
    return chosen


def _softplus(values: Tensor) -> Tensor:
    return nn.functional.softplus(values).mean()


def _network(inputs: int, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Linear(inputs, _UNITS), nn.SiLU(), nn.Linear(_UNITS, _UNITS), nn.SiLU(), nn.Linear(_UNITS, 1)
        )
    nn.init.zeros_(network[-1].weight)  # type: ignore[arg-type]
    nn.init.zeros_(network[-1].bias)  # type: ignore[arg-type]
    return network


def _standard_error(values: Floats) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values)))
