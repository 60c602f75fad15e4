"""Inference in an energy-based bottleneck: a mean field of concepts for each class, exact over classes.

The factors E_xy and E_xc alone have exact posteriors, a softmax and K sigmoids; only E_cy couples. For each class y,
independent concepts q(c | y) minimise the free energy F_y, and p(y | x) ~ exp(logits_y - F_y): exact where the coupling
is 0 or every concept is known. What enters the ReLU of E_cy is a sum over K concepts, so its expectation is taken as
of a normal variable with the sum's mean and variance.

Each row stops by itself, and rows are worked on in blocks of one shape, so that a row's result does not depend on the
rows beside it. (The published inference stops a batch when its mean energy does, and reads E_cy at rounded concepts,
which leaves concepts no gradient from it.)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.methods.cbm.bottleneck import Floats
from bntools.core.methods.cbm.energy.energies import EnergyModel, sigmoid, softmax

_CELLS = 1 << 18
"""Rows x classes x (concepts + hidden units) worked on at once."""
_STEPS, _TOLERANCE, _DAMPING = 60, 1e-4, 0.5
Known = NDArray[np.int8]


class Posterior(NamedTuple):
    """classes [N, C]: p(y | x, known). given_class [N, C, K]: p(c_k | y, x, known). steps [N]: taken by each row."""

    classes: Floats
    given_class: Floats
    steps: NDArray[np.int64]

    @property
    def concepts(self) -> Floats:
        """p(c_k | x, known), [N, K]."""
        return np.einsum("nc,nck->nk", self.classes, self.given_class)


class Marginals(NamedTuple):
    """What of a posterior takes little room: p(y | x, known) [N, C], p(c_k | x, known) [N, K], and steps [N]."""

    classes: Floats
    concepts: Floats
    steps: NDArray[np.int64]


def marginals(model: EnergyModel, embeddings: Floats, known: Known | None = None) -> Marginals:
    """`infer` of any number of rows, in the memory of a block."""
    size, parts = block_rows(model), []
    for start in range(0, len(embeddings), size):
        evidence = None if known is None else known[start : start + size]
        part = infer(model, embeddings[start : start + size], evidence)
        parts.append(Marginals(part.classes, part.concepts, part.steps))
    return Marginals(
        np.concatenate([part.classes for part in parts]),
        np.concatenate([part.concepts for part in parts]),
        np.concatenate([part.steps for part in parts]),
    )


def block_rows(model: EnergyModel) -> int:
    """Rows of a block: the same for every call on a model."""
    cells = len(model.classes) * (len(model.names) + len(model.base))
    return int(np.clip(_CELLS // cells, 1, 512))


def infer(model: EnergyModel, embeddings: Floats, known: Known | None = None) -> Posterior:
    """The posterior of some rows. known [N, K]: 1, 0, and -1 where a concept is not known."""
    size, parts = block_rows(model), []
    for start in range(0, len(embeddings), size):
        rows = embeddings[start : start + size]
        padded = np.zeros((size, embeddings.shape[1]), np.float32)
        padded[: len(rows)] = rows
        evidence = np.full((size, len(model.names)), -1, np.int8)
        if known is not None:
            evidence[: len(rows)] = known[start : start + size]
        parts.append((_block(model, padded, evidence), len(rows)))
    return Posterior(
        np.concatenate([part.classes[:count] for part, count in parts]),
        np.concatenate([part.given_class[:count] for part, count in parts]),
        np.concatenate([part.steps[:count] for part, count in parts]),
    )


def _block(model: EnergyModel, embeddings: Floats, known: Known) -> Posterior:
    prepared = model.prepare(embeddings)
    logits, odds = model.class_logits(prepared), model.concept_odds(prepared)
    coupling = np.where((known >= 0).any(1), model.coupling[1], model.coupling[0]).astype(np.float32)
    belief = np.repeat(_clamp(sigmoid(odds), known)[:, None], len(model.classes), 1)
    active, steps = np.ones(len(odds), bool), np.zeros(len(odds), np.int64)
    current = np.repeat(odds[:, None], len(model.classes), 1)
    for _ in range(_STEPS):
        slope = _slope(model, belief)
        wanted = odds[:, None] - coupling[:, None, None] * slope
        current = np.where(
            active[:, None, None], current + np.float32(_DAMPING) * (wanted - current), current
        )
        following = _clamp(sigmoid(current), known[:, None])
        moved = np.abs(following - belief).max((1, 2))
        belief = np.where(active[:, None, None], following, belief)
        steps += active
        active &= moved > _TOLERANCE
        if not active.any():
            break
    return Posterior(softmax(logits - _free_energy(model, belief, odds, coupling)), belief, steps)


def _clamp(belief: Floats, known: Known) -> Floats:
    return np.where(known >= 0, known, belief).astype(np.float32)


def _moments(model: EnergyModel, belief: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Mean and deviation [N, C, h] of what enters the ReLU, and the normal distribution and density at its zero."""
    mean = model.base + belief @ model.steps
    spread = np.sqrt(np.maximum((belief * (1 - belief)) @ np.square(model.steps), 1e-10))
    distribution, density = normal(mean / spread)
    return mean, spread, distribution, density


def _slope(model: EnergyModel, belief: Floats) -> Floats:
    """What E_cy is expected to change by for a unit of belief in each concept, [N, C, K]."""
    _, spread, distribution, density = _moments(model, belief)
    straight = (distribution * model.global_map) @ model.steps.T
    bent = (density / (2 * spread) * model.global_map) @ np.square(model.steps).T
    return straight + (1 - 2 * belief) * bent


def _free_energy(model: EnergyModel, belief: Floats, odds: Floats, coupling: Floats) -> Floats:
    """F_y up to a constant, [N, C]: expected energy of the concepts minus their entropy."""
    mean, spread, distribution, density = _moments(model, belief)
    energy = ((mean * distribution + spread * density) * model.global_map).sum(-1)
    safe = np.clip(belief, 1e-7, 1 - 1e-7)
    entropy = -(safe * np.log(safe) + (1 - safe) * np.log1p(-safe)).sum(-1)
    return coupling[:, None] * energy - (belief * odds[:, None]).sum(-1) - entropy


def normal(z: Floats) -> tuple[Floats, Floats]:
    """Distribution and density of a standard normal variable (Abramowitz and Stegun 26.2.17, to 7.5e-8)."""
    density = np.exp(-0.5 * np.square(np.clip(z, -12, 12))) * np.float32(0.3989422804)
    t = 1 / (1 + np.float32(0.2316419) * np.abs(z))
    series = t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))))
    tail = density * series
    return np.where(z >= 0, 1 - tail, tail), density
