"""The laws: the log of the predicted loss, and its derivatives, for many parameter vectors at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Law:
    """A family of laws of one or two variables.

    `power` L = E + A x^-alpha; `chinchilla` L = E + A N^-alpha + B D^-beta (Hoffmann et al., arXiv 2203.15556, eq. 10);
    `kaplan` L = E + (A^(1/beta) N^(-alpha/beta) + B^(1/beta) / D)^beta, which with E = 0, A = N_c^alpha, B = D_c^beta
    is Kaplan et al., arXiv 2001.08361, eq. 1.5. `irreducible`: whether E is fitted; otherwise it is 0.
    """

    name: str
    irreducible: bool = True

    @property
    def joint(self) -> bool:
        """Whether there is a second variable."""
        return self.name != "power"

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names in the order of a parameter vector; A, B and E stand there as their logs."""
        names = ("A", "alpha", "B", "beta") if self.joint else ("A", "alpha")
        return (*names, "E") if self.irreducible else names

    @property
    def formula(self) -> str:
        """The law as a person writes it."""
        body = {
            "power": "A x^-alpha",
            "chinchilla": "A N^-alpha + B D^-beta",
            "kaplan": "(A^(1/beta) N^(-alpha/beta) + B^(1/beta) / D)^beta",
        }[self.name]
        return f"E + {body}" if self.irreducible else body


@dataclass(frozen=True)
class Evaluation:
    """Log predicted loss [batch, runs] and its derivatives by each parameter, in the order of `Law.parameters`."""

    log_loss: Array
    derivatives: list[Array]


def evaluate(law: Law, theta: Array, x: Array) -> Evaluation:
    """Log loss and derivatives for theta [batch, parameters] at logs of the variables x [variables, runs].

    A vector out of all bounds gives infinities or NaN, never a warning.
    """
    with np.errstate(all="ignore"):
        if law.name == "kaplan":
            reducible, parts = _kaplan(theta, x)
        else:
            reducible, parts = _additive(theta, x)
        if not law.irreducible:
            return Evaluation(np.log(reducible), [part / reducible for part in parts])
        e = np.exp(theta[:, -1:])
        total = reducible + e
        return Evaluation(np.log(total), [part / total for part in (*parts, e)])


def log_loss(law: Law, theta: Array, x: Array) -> Array:
    """Log loss alone, [batch, runs]."""
    return evaluate(law, theta, x).log_loss


def _additive(theta: Array, x: Array) -> tuple[Array, list[Array]]:
    """The power terms' sum, and its derivatives by a = ln A, alpha (and b = ln B, beta)."""
    first = np.exp(theta[:, 0:1] - theta[:, 1:2] * x[0])
    parts = [first, -first * x[0]]
    if len(x) == 1:
        return first, parts
    second = np.exp(theta[:, 2:3] - theta[:, 3:4] * x[1])
    return first + second, [*parts, second, -second * x[1]]


def _kaplan(theta: Array, x: Array) -> tuple[Array, list[Array]]:
    """(e^(p/beta) + e^(q/beta))^beta, p = a - alpha ln N, q = b - beta ln D: a softened sum, and its derivatives."""
    beta = theta[:, 3:4]
    p = theta[:, 0:1] - theta[:, 1:2] * x[0]
    q = theta[:, 2:3] - beta * x[1]
    top = np.maximum(p, q)
    first, second = np.exp((p - top) / beta), np.exp((q - top) / beta)
    both = first + second
    share = first / both
    value = np.exp(top + beta * np.log(both))
    softness = (
        np.log(both) + (top - share * p - (1 - share) * q) / beta
    )  # d ln(value) / d beta at fixed p and q
    of_p, of_q = value * share, value * (1 - share)
    return value, [of_p, -of_p * x[0], of_q, value * softness - of_q * x[1]]
