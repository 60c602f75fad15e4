"""Two balancing tasks, stepped for many episodes at once: positions and speeds are arrays, one entry an episode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Environment(Protocol):
    """states [n, observations]; a reward of one a step until an episode ends, at most `horizon` in all."""

    observations: int
    outputs: int
    horizon: int

    def start(self, random: Array) -> Array: ...

    def step(self, states: Array, outputs: Array) -> Array: ...

    def alive(self, states: Array) -> NDArray[np.bool_]: ...


@dataclass(frozen=True)
class CartPole:
    """A pole on a cart that is pushed left or right with 10 N (Barto, Sutton and Anderson 1983).

    State: position, speed, angle, angular speed. Ends beyond 2.4 m or 12 degrees; solved is 195 of 200.
    """

    observations: int = 4
    outputs: int = 2
    horizon: int = 200

    def start(self, random: Array) -> Array:
        """random: [n, 4] uniform in [0, 1); states within 0.05 of rest."""
        return 0.1 * random - 0.05

    def step(self, states: Array, outputs: Array) -> Array:
        force = np.where(outputs[:, 1] > outputs[:, 0], 10.0, -10.0)
        return _cart(states, force, pole=0.1, cart=1.0, half=0.5, time=0.02)

    def alive(self, states: Array) -> NDArray[np.bool_]:
        return (np.abs(states[:, 0]) <= 2.4) & (np.abs(states[:, 2]) <= np.deg2rad(12))


@dataclass(frozen=True)
class Pendulum:
    """An inverted pendulum on a cart moved by a continuous force; ends beyond 0.2 rad, 1,000 steps at most.

    Stands for the paper's InvertedPendulum without its simulator: a pole of 5 kg and 0.6 m on a cart of 10 kg, force
    100 N times an output clipped to [-1, 1]. As there, the network has an output more, which plays no part.
    """

    observations: int = 4
    outputs: int = 2
    horizon: int = 1000

    def start(self, random: Array) -> Array:
        """random: [n, 4] uniform in [0, 1); states within 0.01 of rest."""
        return 0.02 * random - 0.01

    def step(self, states: Array, outputs: Array) -> Array:
        force = 100.0 * np.clip(outputs[:, 0], -1, 1)
        return _cart(states, force, pole=5.0, cart=10.0, half=0.3, time=0.04)

    def alive(self, states: Array) -> NDArray[np.bool_]:
        return np.abs(states[:, 2]) <= 0.2


ENVIRONMENTS: dict[str, Environment] = {"cartpole": CartPole(), "pendulum": Pendulum()}


def _cart(states: Array, force: Array, pole: float, cart: float, half: float, time: float) -> Array:
    """One Euler step of a uniform pole of half length `half` on a cart: masses in kg, lengths in m, time in s."""
    x, speed, angle, spin = states.T
    sine, cosine, total = np.sin(angle), np.cos(angle), pole + cart
    push = (force + pole * half * spin**2 * sine) / total
    turn = (9.8 * sine - cosine * push) / (half * (4 / 3 - pole * cosine**2 / total))
    pull = push - pole * half * turn * cosine / total
    return np.stack([x + time * speed, speed + time * pull, angle + time * spin, spin + time * turn], 1)
