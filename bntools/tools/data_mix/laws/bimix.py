"""BiMix (arXiv 2405.14908): L_d(r, s) = A_d / r_d^alpha_d (B_d / s^beta_d + C_d), of a domain's share r and the size s.

It needs a loss for every source, under the source's name, and a share above 0 of it in every run.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import bad_input
from bntools.tools.data_mix.laws.exponential import shares
from bntools.tools.data_mix.runs.runs import Runs

Floats = NDArray[np.floating[Any]]


class BiMix(NamedTuple):
    """Logs of A B, C A and the exponents alpha, beta [domains, 4], by the source each domain is named after."""

    parameters: Floats
    of: NDArray[np.int64]
    unit: float
    share: Floats

    def predict(self, weights: Floats, n: float) -> Floats:
        """The metric [k] at size n; a share of 0 gives infinity."""
        with np.errstate(divide="ignore"):
            losses = [
                _law(q, weights[:, i], n / self.unit) for q, i in zip(self.parameters, self.of, strict=True)
            ]
        return self.share @ np.stack(losses)


def fit(runs: Runs) -> BiMix:
    """Least squares in log loss of every domain. Raises BnError (exit 3) for tables it cannot be fitted to."""
    names = [name for name in runs.domains if name in runs.sources]
    if not names or len(names) < len(runs.domains):
        raise bad_input("bimix needs a loss for each source, under its name", '"domains": {"web": 2.9, ...}')
    of = np.array([runs.sources.index(name) for name in names])
    if (runs.weights[:, of] <= 0).any():
        raise bad_input(
            "bimix has no value where a source has weight 0", "leave it out, or give every source some weight"
        )
    if len(runs) < 5 or len(runs.sizes) < 2:
        raise bad_input(f"bimix: {len(runs)} runs at {len(runs.sizes)} sizes", "5 runs at two sizes at least")
    unit = float(np.exp(np.log(runs.n).mean()))
    domains = [
        _fitted(runs.weights[:, i], runs.n / unit, runs.domains[name])
        for i, name in zip(of, names, strict=True)
    ]
    return BiMix(np.stack(domains), of, unit, shares(runs)[1])


def _law(q: Floats, r: Floats, s: Floats | float) -> Floats:
    return r ** -np.exp(q[2]) * (np.exp(q[0]) * s ** -np.exp(q[3]) + np.exp(q[1]))


def _fitted(r: Floats, s: Floats, loss: Floats) -> Floats:
    from scipy.optimize import least_squares

    level, best = np.log(loss.mean()), None
    for alpha in (-4.0, -2.0):
        for beta in (-2.0, -0.7):
            start = np.array([level - 1, level - 0.5, alpha, beta])
            result = least_squares(lambda q: np.log(_law(q, r, s) / loss), start, max_nfev=300)
            if best is None or result.cost < best.cost:
                best = result
    assert best is not None
    return best.x
