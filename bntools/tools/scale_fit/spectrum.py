"""The exponent a kernel's spectrum predicts: eigenvalues falling as i^-(1 + alpha) give a loss falling as D^-alpha."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bntools.core.artifact.reader import Artifact
from bntools.core.errors import bad_input, usage
from bntools.tools.scale_fit.laws import Array

FIRST, LAST = 0.01, 0.25
"""The part of the spectrum fitted, as shares of its length: the head is a few large directions, the tail noise."""
_WINDOWS = [(first, last) for first in (0.005, FIRST, 0.03) for last in (0.15, LAST, 0.4)]
_SHORTEST = 8


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues, largest first, and the exponent {value, low, high} read from them.

    low and high are the extremes over nine windows: which part is fitted matters more than the noise of a fit.
    """

    eigenvalues: Array
    alpha: dict[str, float]
    first: int
    last: int

    def as_json(self) -> dict[str, Any]:
        return {
            "alpha": self.alpha,
            "first": self.first,
            "last": self.last,
            "eigenvalues": len(self.eigenvalues),
        }


def features(source: Artifact, name: str | None) -> Array:
    """The matrix [samples, features] of an artifact: the named tensor, else the only one there is. Raises BnError."""
    matrices = [n for n in source.names() if len(source.entries[n].shape) == 2]
    if name is None and len(matrices) != 1:
        names = ", ".join(matrices[:5]) or "none"
        raise usage(f"{source.label} has {len(matrices)} matrices ({names})", "--tensor NAME")
    chosen = name or matrices[0]
    if chosen not in matrices:
        raise usage(f"{source.label} has no matrix {chosen!r}", f"--tensor {matrices[0]}" if matrices else "")
    if not source.entries[chosen].dtype.startswith(("F", "BF")):
        raise bad_input(f"{chosen} holds {source.entries[chosen].dtype}, not floating-point numbers")
    return source.tensor(chosen).double().numpy()


def spectrum(matrix: Array) -> Spectrum:
    """Eigenvalues of the covariance of features [samples, features], and the exponent alpha_K = -slope - 1.

    The slope is of ln(eigenvalue) against ln(index), least squares (Bahri et al., arXiv 2102.06701, section 2.3).
    Raises BnError (exit 3) for numbers that are not finite or too few of them.
    """
    if not np.isfinite(matrix).all():
        raise bad_input("the features hold NaN or infinity", "drop those rows first")
    centred = matrix - matrix.mean(0)
    rows, columns = centred.shape
    gram = centred.T @ centred if columns <= rows else centred @ centred.T
    values = np.linalg.eigvalsh(gram / max(rows, 1))[::-1]
    values = values[values > max(values[0], 0) * 1e-12] if len(values) else values
    if len(values) * LAST < _SHORTEST:
        raise bad_input(
            f"the features have {len(values)} eigenvalues above 0, too few for an exponent",
            "more samples, or wider features",
        )
    slopes = [_alpha(values, first, last) for first, last in _WINDOWS]
    value = _alpha(values, FIRST, LAST)
    first, last = _window(len(values), FIRST, LAST)
    return Spectrum(values, {"value": value, "low": min(slopes), "high": max(slopes)}, first, last)


def _window(count: int, first: float, last: float) -> tuple[int, int]:
    """First and last index, counted from 1."""
    begin = max(1, round(first * count))
    return begin, min(max(round(last * count), begin + _SHORTEST - 1), count)


def _alpha(values: Array, first: float, last: float) -> float:
    begin, end = _window(len(values), first, last)
    index = np.log(np.arange(begin, end + 1))
    return float(-np.polyfit(index, np.log(values[begin - 1 : end]), 1)[0] - 1)
