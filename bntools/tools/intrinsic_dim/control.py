"""Control problems by evolution strategies: the same subspaces, no gradient at all."""

from __future__ import annotations

import time
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from bntools.core.datasets import networks
from bntools.core.errors import usage
from bntools.kernels.counter_random import normals, uniforms
from bntools.kernels.projections import projections
from bntools.tools.intrinsic_dim.environments import ENVIRONMENTS
from bntools.tools.intrinsic_dim.runs import Job, Outcome

Floats = NDArray[np.float32]
POPULATION = 16
"""Directions a step; each is tried forwards and backwards."""
EPISODES = 4
"""Episodes a direction."""
TRIALS = 100
"""Episodes of a score."""
STEPS_AN_EPOCH = 25
_NOISE, _TRAIN, _HELD, _TEST = 21, 22, 23, 24


class Control:
    """Reward of a policy network in an environment; the target is a share of the way from theta_0 to the baseline.

    Evolution strategies (Salimans et al. 2017): antithetic Gaussian directions, centred ranks of their returns, plain
    steps. The learning rate is the deviation of a direction's coordinates and scales the step as well.
    """

    scored = "return"
    spans_from_floor = True
    base_rate = 0.05

    def __init__(self, source: Any) -> None:
        if source.env not in ENVIRONMENTS:
            raise usage(f"no environment {source.env!r}", f"known are {', '.join(ENVIRONMENTS)}")
        if not source.model.startswith("fc:"):
            raise usage(f"--env takes a network fc:W,..., not {source.model!r}", "--model fc:20,20")
        if source.projection == "said" or source.modules or source.shuffle or source.share != 1:
            raise usage(
                "--env goes with none of --projection said, --modules, --shuffle, --samples", "leave it out"
            )
        self.source, self.world = source, ENVIRONMENTS[source.env]
        self.facts = {"env": source.env, "population": POPULATION}

    @cached_property
    def size(self) -> int:
        return self.flat(0).size

    @property
    def kind(self) -> str:
        asked = self.source.projection
        return projections.default_kind(self.size) if asked == "auto" else asked

    @property
    def steps(self) -> int:
        """Steps of a whole run."""
        return max(round(self.source.epochs * STEPS_AN_EPOCH), 1)

    def flat(self, seed: int) -> networks.FlatParameters:
        world = self.world
        module = networks.named(self.source.model, (world.observations,), world.outputs, nn.Tanh)
        networks.initialize(module, seed)
        return networks.FlatParameters(module)

    def projection(self, dim: int, seed: int) -> Any:
        return projections.make(self.kind, self.size, dim, seed)

    def run(self, job: Job, start: Any = None) -> Outcome:
        """Evolve once; the runs of half the dimension are not continued, nothing is given up early."""
        began = time.process_time()
        theta0 = self.flat(job.seed).theta.numpy()
        projection = None if job.dim is None else self.projection(job.dim, job.seed)
        dim = job.dim or self.size
        reach = np.float32(job.lr)
        z = np.zeros(dim, np.float32)
        total = max(round(self.steps * job.share), 1)
        floor, floor_test = (
            float(self.score(theta0[None], job.seed, stream)[0]) for stream in (_HELD, _TEST)
        )
        for step in range(total):
            noise = normals(job.seed, _NOISE, step * POPULATION * dim, POPULATION * dim).reshape(
                POPULATION, dim
            )
            tries = np.concatenate([z + reach * noise, z - reach * noise])
            returns = self._returns(_weights(projection, theta0, tries), job.seed, _TRAIN, step, EPISODES)
            ranks = _centred_ranks(returns)
            weight = ranks[:POPULATION] - ranks[POPULATION:]
            z = (z + reach * 4 / POPULATION * (weight @ noise)).astype(np.float32)
        final = _weights(projection, theta0, z[None])
        validation, score = (float(self.score(final, job.seed, stream)[0]) for stream in (_HELD, _TEST))
        point = None if job.dim is None else z
        seconds = time.process_time() - began
        return Outcome(
            score, validation, floor, [(1.0, validation)], total, seconds, False, floor_test, point
        )

    def score(self, thetas: Floats, seed: int, stream: int) -> NDArray[np.float64]:
        """Mean return over TRIALS episodes of each policy: [n]."""
        return self._returns(thetas, seed, stream, 0, TRIALS)

    def _returns(
        self, thetas: Floats, seed: int, stream: int, number: int, episodes: int
    ) -> NDArray[np.float64]:
        """Mean returns of policies [n, D] over the same `episodes` starts."""
        world, count = self.world, episodes * self.world.observations
        starts = uniforms(seed, stream, number * count, count).reshape(episodes, -1)
        states = np.tile(world.start(starts), (len(thetas), 1))
        layers = _layers(thetas, self.flat_shapes)
        alive, total = np.ones(len(states), bool), np.zeros(len(states))
        for _ in range(world.horizon):
            outputs = _forward(layers, states.reshape(len(thetas), episodes, -1))
            states = np.where(alive[:, None], world.step(states, outputs.reshape(len(states), -1)), states)
            alive &= world.alive(states)
            if not alive.any():
                break
            total += alive
        return total.reshape(len(thetas), episodes).mean(1)

    @cached_property
    def flat_shapes(self) -> list[tuple[int, ...]]:
        return [tuple(parameter.shape) for parameter in self.flat(0).parameters]

    def network_facts(self) -> dict[str, Any]:
        raise usage("--output writes networks on data, not policies", "leave out -o")


def _weights(projection: Any, theta0: Floats, points: Floats) -> Floats:
    """theta_0 + P z of each row z."""
    if projection is None:
        return theta0 + points
    out = np.empty((len(points), len(theta0)), np.float32)
    for row, z in zip(out, points, strict=True):
        projection.apply(z, theta0, row)
    return out


def _layers(thetas: Floats, shapes: list[tuple[int, ...]]) -> list[tuple[Floats, Floats]]:
    """Weights [n, in, out] and biases [n, 1, out] of each layer."""
    parts, end = [], 0
    for shape in shapes:
        count = int(np.prod(shape))
        parts.append(thetas[:, end : end + count].reshape(-1, *shape))
        end += count
    return [(w.transpose(0, 2, 1).copy(), b[:, None]) for w, b in zip(parts[0::2], parts[1::2], strict=True)]


def _forward(layers: list[tuple[Floats, Floats]], inputs: NDArray) -> NDArray:
    """Outputs [n, episodes, out] of n policies."""
    hidden = inputs.astype(np.float32)
    for index, (weight, bias) in enumerate(layers):
        hidden = hidden @ weight + bias
        if index < len(layers) - 1:
            hidden = np.tanh(hidden)
    return hidden


def _centred_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from -0.5 to 0.5, equal values sharing their mean rank: the network's scale plays no part."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return (last - (count + 1) / 2)[place] / max(len(values) - 1, 1) - 0.5
