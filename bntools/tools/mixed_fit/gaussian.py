"""The Gaussian mixed model: penalised least squares, profiled over fixed effects and the error's variance.

y = X b + Z Lambda u + e with u ~ N(0, s^2 I), e_i ~ N(0, s^2 / weight_i), Lambda of one lower triangle T a term. With
L L^T = Lambda^T Z^T W Z Lambda + I and r^2 the penalised residual, the deviance is ln|L|^2 + n (1 + ln(2 pi r^2 / n))
less sum ln weight (Bates et al. 2015). The blocks of the term with most groups are eliminated one by one, the rest
densely.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import BnError, usage
from bntools.tools.mixed_fit.data import MixedData, Term

Floats = NDArray[np.float64]
_MOST_DENSE = 8000  # random effects outside the first term


class Solution(NamedTuple):
    """At one theta: deviance, fixed effects [p], their covariance [p, p], s, and random effects, one [groups, r] a
    term."""

    deviance: float
    beta: Floats
    covariance: Floats
    sigma: float
    effects: list[Floats]


class Products:
    """Cross products of a mixed model's matrices, which any theta is solved from."""

    def __init__(self, data: MixedData, weights: Floats | None = None) -> None:
        self.order = sorted(range(len(data.terms)), key=lambda t: -len(data.terms[t].levels))
        terms = [data.terms[t] for t in self.order]
        self.terms, self.n, self.p = terms, len(data.y), data.x.shape[1]
        self.size = sum(len(term.levels) * term.z.shape[1] for term in terms[1:])
        if self.size > _MOST_DENSE:
            raise usage(
                f"{self.size:,} random effects beside the largest term, at most {_MOST_DENSE:,}",
                "fewer --random terms",
            )
        root = np.ones(self.n) if weights is None else np.sqrt(weights)
        self.log_weights = 0.0 if weights is None else float(np.log(weights).sum())
        first = terms[0].z * root[:, None]
        rest = np.hstack([*(_dense(term, root) for term in terms[1:]), np.c_[data.x, data.y] * root[:, None]])
        self.first = _grouped(first[:, :, None] * first[:, None, :], terms[0])
        self.cross = _grouped(first[:, :, None] * rest[:, None, :], terms[0])
        self.rest = rest.T @ rest
        self.starts = np.cumsum([0, *(len(term.levels) * term.z.shape[1] for term in terms[1:])])

    def triangles(self, theta: Floats) -> list[Floats]:
        """T of each term, in the order of elimination; theta lists them in the order of the data."""
        sizes = {t: self.terms[i].z.shape[1] for i, t in enumerate(self.order)}
        triangles, at = {}, 0
        for t in range(len(self.order)):
            r = sizes[t]
            triangle = np.zeros((r, r))
            triangle[np.tril_indices(r)] = theta[at : at + r * (r + 1) // 2]
            triangles[t], at = triangle, at + r * (r + 1) // 2
        return [triangles[t] for t in self.order]

    def solve(self, theta: Floats, reml: bool = False, *, only_deviance: bool = False) -> Solution:
        """The profiled fit. Raises BnError (exit 1) where a variance grew beyond all bounds."""
        triangles = self.triangles(theta)
        try:
            return self._solve(triangles, reml, only_deviance)
        except np.linalg.LinAlgError:
            raise BnError(
                "the fit has no finite solution", "are the fixed effects and groups on a sensible scale?"
            ) from None

    def _solve(self, triangles: list[Floats], reml: bool, only_deviance: bool) -> Solution:
        t = triangles[0]
        blocks = t.T @ self.first @ t
        blocks[:, range(len(t)), range(len(t))] += 1
        lower = np.linalg.cholesky(blocks)
        cross = np.linalg.solve(lower, t.T @ self._scaled(self.cross, triangles))
        rest = self._scaled(self._scaled(self.rest, triangles).T, triangles)
        flat = cross.reshape(-1, cross.shape[-1])
        rest = rest - flat.T @ flat
        k = self.size
        rest[range(k), range(k)] += 1
        whole = np.linalg.cholesky(rest)
        last = float(whole[-1, -1])
        log_det = 2 * float(
            np.log(np.diagonal(lower, axis1=1, axis2=2)).sum() + np.log(np.diag(whole)[:k]).sum()
        )
        x_root = whole[k:-1, k:-1]
        free = self.n - self.p if reml else self.n
        deviance = log_det + free * (1 + np.log(2 * np.pi * last**2 / free)) - self.log_weights
        if reml:
            deviance += 2 * float(np.log(np.diag(x_root)).sum())
        if only_deviance:
            return Solution(deviance, np.empty(0), np.empty((0, 0)), last, [])
        sigma = last / np.sqrt(free)
        solved = np.linalg.solve(
            whole[:-1, :-1].T, whole[-1, :-1]
        )  # rest of the effects, then the fixed ones
        inverse = np.linalg.inv(x_root)
        u = np.linalg.solve(lower.transpose(0, 2, 1), cross[..., -1:] - cross[..., :-1] @ solved[:, None])[
            ..., 0
        ]
        effects = [u @ t.T]
        for term, triangle, start in zip(self.terms[1:], triangles[1:], self.starts, strict=False):
            size = len(term.levels) * len(triangle)
            effects.append(solved[start : start + size].reshape(-1, len(triangle)) @ triangle.T)
        ordered = [effects[self.order.index(i)] for i in range(len(self.order))]
        return Solution(deviance, solved[k:], sigma**2 * inverse.T @ inverse, float(sigma), ordered)

    def _scaled(self, matrix: Floats, triangles: list[Floats]) -> Floats:
        """Columns of the terms after the first, multiplied with their T."""
        if not self.size:
            return matrix
        matrix = matrix.copy()
        for term, triangle, start in zip(self.terms[1:], triangles[1:], self.starts, strict=False):
            stop = start + len(term.levels) * len(triangle)
            part = matrix[..., start:stop]
            matrix[..., start:stop] = (part.reshape(*part.shape[:-1], -1, len(triangle)) @ triangle).reshape(
                part.shape
            )
        return matrix

    def row_variances(self, theta: Floats, data: MixedData) -> Floats:
        """Variance of each row's random part given the data, in units of s^2."""
        return _row_variances(self, self.triangles(theta), data)


def start(data: MixedData) -> Floats:
    """theta with every T the identity."""
    return np.concatenate([np.eye(term.z.shape[1])[np.tril_indices(term.z.shape[1])] for term in data.terms])


def fit(products: Products, theta: Floats, reml: bool) -> Floats:
    """theta that minimises the deviance; the signs of T's columns are such that its diagonal is not negative."""
    from scipy.optimize import minimize

    def deviance(value: Floats) -> float:
        return products.solve(value, reml, only_deviance=True).deviance

    tolerance = 1e-3 * max(1.0, products.n / 1000)  # of a slope: the deviance is then 1e-8 from its minimum
    best = minimize(deviance, theta, method="BFGS", options={"gtol": tolerance, "maxiter": 200})
    if not best.success and np.abs(best.jac).max() > 100 * tolerance:  # a corner: search without a gradient
        again = minimize(
            deviance, best.x, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-8, "maxiter": 2000}
        )
        best = again if again.fun < best.fun else best
    return _signed(products, best.x)


def _signed(products: Products, theta: Floats) -> Floats:
    triangles = products.triangles(theta)
    ordered = [triangles[products.order.index(t)] for t in range(len(triangles))]
    flipped = [t * np.where(np.diag(t) < 0, -1.0, 1.0) for t in ordered]
    return np.concatenate([t[np.tril_indices(len(t))] for t in flipped])


def _grouped(values: Floats, term: Term) -> Floats:
    """Sums of rows over the groups of a term."""
    order = np.argsort(term.codes, kind="stable")
    starts = np.searchsorted(term.codes[order], np.arange(len(term.levels)))
    return np.add.reduceat(values[order], starts, 0)


def _dense(term: Term, root: Floats) -> Floats:
    groups, r = len(term.levels), term.z.shape[1]
    result = np.zeros((len(root), groups * r))
    for column in range(r):
        result[np.arange(len(root)), term.codes * r + column] = term.z[:, column] * root
    return result


def _row_variances(products: Products, triangles: list[Floats], data: MixedData) -> Floats:
    """z_i^T Lambda (L L^T)^-1 Lambda^T z_i, with fixed effects taken as known."""
    t = triangles[0]
    blocks = t.T @ products.first @ t
    blocks[:, range(len(t)), range(len(t))] += 1
    inverse = np.linalg.inv(blocks)
    term = products.terms[0]
    z = term.z @ t
    direct = np.einsum("ia,iab,ib->i", z, inverse[term.codes], z)
    k = products.size
    if not k:
        return direct
    cross = t.T @ products._scaled(products.cross, triangles)[..., :k]
    scaled = products._scaled(products._scaled(products.rest, triangles).T, triangles)[:k, :k]
    schur = scaled + np.eye(k) - np.einsum("gai,gab,gbj->ij", cross, inverse, cross, optimize=True)
    root = np.linalg.cholesky(np.linalg.inv(schur))
    result = np.empty(len(z))
    dense = np.hstack([_dense(other, np.ones(len(z))) for other in products.terms[1:]])
    dense = products._scaled(np.c_[dense, np.zeros((len(z), products.p + 1))], triangles)[:, :k]
    for begin in range(0, len(z), 4096):
        part = slice(begin, begin + 4096)
        codes = term.codes[part]
        seen = dense[part] - np.einsum("ia,iab,ibj->ij", z[part], inverse[codes], cross[codes], optimize=True)
        result[part] = ((seen @ root) ** 2).sum(1)
    return direct + result
