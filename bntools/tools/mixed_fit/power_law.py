"""A q-Gaussian law of each group: its likelihood and gradient, and ECME and conjugate gradient to climb it.

The m rows of a group, y = X b + Z u + e with (u, e) jointly q-Gaussian, are multivariate t with nu = 2 / (q - 1) - m
degrees of freedom, mean X b and scale V = s^2 (I + Z T T^T Z^T); q -> 1 is the Gaussian model. A group has the weight
w = (nu + m) / (nu + Q), Q = r^T V^-1 r (Pinheiro, Liu and Wu 2001).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import usage
from bntools.tools.mixed_fit.data import MixedData
from bntools.tools.mixed_fit.gaussian import _grouped

Floats = NDArray[np.float64]


class Point(NamedTuple):
    """Fixed effects [p], lower triangle T [r, r], error scale, degrees of freedom."""

    beta: Floats
    triangle: Floats
    sigma: float
    nu: float


class Slope(NamedTuple):
    """Log-likelihood with its derivatives by beta, T, ln sigma and ln nu; weights w and distances Q of the groups."""

    value: float
    beta: Floats
    triangle: Floats
    log_sigma: float
    log_nu: float
    weights: Floats
    distances: Floats


class Groups:
    """Cross products of each group of the one random term."""

    def __init__(self, data: MixedData) -> None:
        if len(data.terms) != 1:
            names = ", ".join(term.group for term in data.terms)
            raise usage(
                f"--tails q needs one random term, not {len(data.terms)} ({names})",
                "--tails row has no such limit",
            )
        term = data.terms[0]
        joined = np.c_[term.z, data.x, data.y]
        products = _grouped(joined[:, :, None] * joined[:, None, :], term)
        r, self.r, self.p = term.z.shape[1], term.z.shape[1], data.x.shape[1]
        self.sizes = np.bincount(term.codes).astype(float)
        self.z, self.cross, self.rest = products[:, :r, :r], products[:, :r, r:], products[:, r:, r:]

    def whitened(self, point: Point) -> tuple[Floats, Floats, Floats]:
        """M^-1 with M = T^T Z^T Z T + I, Z^T r and s^2 Q of each group."""
        t, c = point.triangle, np.append(-point.beta, 1.0)
        inverse = np.linalg.inv(t.T @ self.z @ t + np.eye(self.r))
        seen = self.cross @ c
        whole = np.einsum("i,gij,j->g", c, self.rest, c, optimize=True)
        tz = seen @ t
        return inverse, seen, np.maximum(whole - np.einsum("gi,gij,gj->g", tz, inverse, tz), 0)

    def slope(self, point: Point) -> Slope:
        """The log-likelihood at a point, with its gradient."""
        from scipy.special import gammaln, psi

        t, s2, nu, m = point.triangle, point.sigma**2, point.nu, self.sizes
        inverse, seen, q = self.whitened(point)
        q = q / s2
        w = (nu + m) / (nu + q)
        log_det = m * np.log(s2) - np.linalg.slogdet(inverse)[1]
        constant = gammaln((nu + m) / 2) - gammaln(nu / 2) - m / 2 * np.log(nu * np.pi)
        value = float((constant - log_det / 2 - (nu + m) / 2 * np.log1p(q / nu)).sum())
        smooth = t @ inverse @ t.T  # so that s^2 V^-1 = I - Z smooth Z^T
        a = seen - np.einsum("gij,gjk,gk->gi", self.z, smooth, seen)
        c = np.append(-point.beta, 1.0)
        x_r = self.rest[:, :-1] @ c - np.einsum("gip,gij,gj->gp", self.cross[:, :, :-1], smooth, seen)
        b = self.z - self.z @ smooth @ self.z
        triangle = (np.einsum("g,gi,gj->ij", w, a, a) / s2 - b.sum(0)) @ t
        by_nu = psi((nu + m) / 2) - psi(nu / 2) - m / nu - np.log1p(q / nu) + w * q / nu
        return Slope(
            value, (w @ x_r) / s2, np.tril(triangle), float((w * q - m).sum()), float(by_nu.sum()) * nu / 2, w, q
        )  # fmt: skip

    def information(self, point: Point) -> Floats:
        """Expected information of the fixed effects: sum (nu + m) / (nu + m + 2) X^T V^-1 X (Lange et al. 1989)."""
        t = point.triangle
        inverse = self.whitened(point)[0]
        x = self.cross[:, :, :-1]
        v = self.rest[:, :-1, :-1] - np.einsum("gip,gij,gjq->gpq", x, t @ inverse @ t.T, x, optimize=True)
        factor = (point.nu + self.sizes) / (point.nu + self.sizes + 2)
        return np.einsum("g,gpq->pq", factor, v) / point.sigma**2

    def effects(self, point: Point) -> Floats:
        """Conditional modes of the random effects [groups, r]."""
        t = point.triangle
        inverse, seen, _ = self.whitened(point)
        return np.einsum("gij,gj->gi", t @ inverse @ t.T, seen)


def climb(groups: Groups, start: Point, *, fixed_nu: bool) -> Point:
    """Maximum of the likelihood by BFGS with the exact gradient, fixed effects in units of their errors."""
    from scipy.optimize import minimize

    scale = 1 / np.sqrt(np.diag(groups.information(start)))
    rows, columns = np.tril_indices(groups.r)

    def point_of(v: Floats) -> Point:
        triangle = np.zeros((groups.r, groups.r))
        triangle[rows, columns] = v[groups.p : groups.p + len(rows)]
        nu = start.nu if fixed_nu else float(np.exp(np.clip(v[-1], -2, 16)))
        return Point(start.beta + scale * v[: groups.p], triangle, float(np.exp(v[groups.p + len(rows)])), nu)

    def negative(v: Floats) -> tuple[float, Floats]:
        slope = groups.slope(point_of(v))
        gradient = [*(slope.beta * scale), *slope.triangle[rows, columns], slope.log_sigma]
        return -slope.value, -np.array(gradient if fixed_nu else [*gradient, slope.log_nu])

    first = [*np.zeros(groups.p), *start.triangle[rows, columns], np.log(start.sigma)]
    first = first if fixed_nu else [*first, np.log(start.nu)]
    best = minimize(
        negative, np.array(first), jac=True, method="BFGS", options={"gtol": 1e-5, "maxiter": 500}
    )
    return point_of(best.x)


def ecme(
    groups: Groups, start: Point, *, fixed_nu: bool, tol: float = 1e-9, most: int = 5000
) -> tuple[Point, int]:
    """The same by closed updates of beta, D and s^2 with the weights of the groups, nu by the likelihood itself."""
    point, last = start, -np.inf
    for step in range(1, most + 1):
        slope = groups.slope(point)
        if slope.value - last < tol * abs(slope.value):
            return point, step
        last, w = slope.value, slope.weights
        t = point.triangle
        inverse = groups.whitened(point)[0]
        smooth = t @ inverse @ t.T
        x = groups.cross
        whole = groups.rest - np.einsum("gip,gij,gjq->gpq", x, smooth, x, optimize=True)
        normal = np.einsum("g,gpq->pq", w, whole)
        point = point._replace(beta=np.linalg.solve(normal[:-1, :-1], normal[:-1, -1]))
        u, c = groups.effects(point), np.append(-point.beta, 1.0)
        variance = (np.einsum("g,gi,gj->ij", w, u, u) + point.sigma**2 * smooth.sum(0)) / len(w)
        residual = np.einsum("i,gij,j->g", c, groups.rest, c) - 2 * np.einsum(
            "gi,gij,j->g", u, groups.cross, c
        )
        residual = residual + np.einsum("gi,gij,gj->g", u, groups.z, u)
        spread = w @ residual + point.sigma**2 * np.einsum("gij,gji->", smooth, groups.z)
        sigma = float(np.sqrt(spread / groups.sizes.sum()))
        triangle = np.linalg.cholesky(variance + 1e-14 * np.trace(variance) * np.eye(groups.r)) / sigma
        point = point._replace(triangle=triangle, sigma=sigma)
        if not fixed_nu:
            point = point._replace(nu=_best_nu(groups, point))
    return point, most


def _best_nu(groups: Groups, point: Point) -> float:
    from scipy.optimize import minimize_scalar

    def negative(log_nu: float) -> float:
        return -groups.slope(point._replace(nu=float(np.exp(log_nu)))).value

    return float(np.exp(minimize_scalar(negative, bounds=(-2, 14), method="bounded").x))


def conjugate_gradient(
    groups: Groups, start: Point, *, fixed_nu: bool, l1: float = 0.0, tol: float = 1e-6, most: int = 5000
) -> tuple[Point, int]:
    """The same by proximal nonlinear conjugate gradients (Polak-Ribiere, restarted where it does not descend).

    Minimises -ln L / n + l1 sum |b_j| over all fixed effects but the first: a step along the conjugate direction,
    halved until the objective falls, then the soft threshold. After the thesis' idea; its own text was not at hand.
    """
    rows, columns = np.tril_indices(groups.r)
    scale = 1 / np.sqrt(np.diag(groups.information(start)))
    n, p = groups.sizes.sum(), groups.p
    threshold = l1 * scale * (np.arange(p) > 0)

    def point_of(v: Floats) -> Point:
        triangle = np.zeros((groups.r, groups.r))
        triangle[rows, columns] = v[p : p + len(rows)]
        nu = start.nu if fixed_nu else float(np.exp(np.clip(v[-1], -2, 16)))
        return Point(scale * v[:p], triangle, float(np.exp(v[p + len(rows)])), nu)

    def look(v: Floats) -> tuple[float, Floats]:
        slope = groups.slope(point_of(v))
        gradient = np.array(
            [*(slope.beta * scale), *slope.triangle[rows, columns], slope.log_sigma, slope.log_nu]
        )
        return -slope.value / n + float(threshold @ np.abs(v[:p])), -gradient[: len(v)] / n

    def shrink(v: Floats, step: float) -> Floats:
        return np.append(np.sign(v[:p]) * np.maximum(np.abs(v[:p]) - step * threshold, 0), v[p:])

    v = np.array(
        [*(start.beta / scale), *start.triangle[rows, columns], np.log(start.sigma), np.log(start.nu)]
    )
    v = v[:-1] if fixed_nu else v
    value, gradient = look(v)
    mapped = v - shrink(v - gradient, 1.0)
    direction, step = -mapped, 1.0
    for iteration in range(1, most + 1):
        step = min(step * 4, 1e3)
        while step > 1e-14:
            new = shrink(v + step * direction, step) if l1 else v + step * direction
            after, new_gradient = look(new)
            if after <= value - 1e-4 / step * float((new - v) @ (new - v)) * min(1, step):
                break
            step /= 2
        else:
            if np.array_equal(direction, -mapped):
                return point_of(v), iteration
            direction, step = -mapped, 1.0
            continue
        new_mapped = new - shrink(new - new_gradient, 1.0)
        turn = max(0.0, float(new_mapped @ (new_mapped - mapped)) / max(float(mapped @ mapped), 1e-300))
        v, value, gradient, mapped = new, after, new_gradient, new_mapped
        if np.abs(mapped).max() < tol:
            return point_of(v), iteration
        direction = -mapped + turn * direction
        if float(direction @ mapped) >= 0:
            direction = -mapped
    return point_of(v), most
