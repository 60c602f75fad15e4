"""Paths of MCP against skglm at the same objective, and the accelerated gradient against coordinate descent.

    python tests/benchmarks/sparse_fit.py

CPU seconds of one thread, interleaved; skglm where it is installed. Objectives are compared at every penalty.
"""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np

from bntools.kernels.penalised.accelerated_gradient import accelerated_gradient, smoothness
from bntools.kernels.penalised.coordinate_descent import gaussian_path
from bntools.kernels.penalised.penalties import MCP, SCAD, value

SHAPE = 3.0


def problem(n=500, p=2000, seed=0):
    """Neighbouring columns correlated by .48, 20 coefficients of size .3 to 1, errors of 1, 40 penalties to .05."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, p))
    x = 0.6 * x + 0.8 * np.roll(x, 1, 1)
    x = (x - x.mean(0)) / x.std(0)
    b = np.zeros(p)
    b[:20] = rng.choice([-1, 1], 20) * rng.uniform(0.3, 1, 20)
    y = x @ b + rng.standard_normal(n)
    y -= y.mean()
    largest = np.abs(x.T @ y).max() / n
    return x, y, np.geomspace(largest, 0.05 * largest, 40)


def objective(x, y, b, lam, kind=MCP, shape=SHAPE):
    return ((y - x @ b) ** 2).mean() / 2 + sum(value(c, lam, shape, kind) for c in b[b != 0])


def skglm_path(x, y, lambdas):
    from skglm.datafits import Quadratic
    from skglm.penalties import MCPenalty
    from skglm.solvers import AndersonCD
    from skglm.utils.jit_compilation import compiled_clone

    loss = compiled_clone(Quadratic())
    loss.initialize(x, y)
    solver = AndersonCD(tol=1e-7, fit_intercept=False, ws_strategy="fixpoint", warm_start=True)
    return solver.path(x, y, loss, compiled_clone(MCPenalty(lambdas[0], SHAPE)), alphas=lambdas)[1].T


def against_skglm():
    print("MCP path of 40 penalties, coordinate descent here and skglm 0.5, warm")
    for n, p in ((500, 500), (500, 2000), (200, 5000)):
        x, y, lambdas = problem(n, p)
        columns, by_column = np.ascontiguousarray(x.T), np.asfortranarray(x)
        gaussian_path(columns[:5], y, lambdas[:2], kind=MCP, shape=SHAPE)
        skglm_path(by_column, y, lambdas[:3])
        times = []
        for _ in range(5):
            began = time.process_time()
            ours = gaussian_path(columns, y, lambdas, kind=MCP, shape=SHAPE)
            middle = time.process_time()
            theirs = skglm_path(by_column, y, lambdas)
            times.append((middle - began, time.process_time() - middle))
        mine, other = np.median(times, 0)
        triples = zip(ours.coefficients, theirs, lambdas, strict=True)
        gaps = [objective(x, y, a, lam) - objective(x, y, b, lam) for a, b, lam in triples]
        print(f"  n {n}, p {p}: {mine:.4f} s, skglm {other:.4f} s, {other / mine:.1f} times")
        print(
            f"    objective here less there {min(gaps):.1e} to {max(gaps):.1e}; {ours.violations} violations repaired"
        )


def against_gradient():
    print("accelerated gradient as published against coordinate descent")
    x, y, lambdas = problem(300, 600)
    columns = np.ascontiguousarray(x.T)
    for name, kind, shape in (("mcp", MCP, 3.0), ("scad", SCAD, 3.7)):
        gaussian_path(columns[:5], y, lambdas[:2], kind=kind, shape=shape)
        began = time.process_time()
        ours = gaussian_path(columns, y, lambdas, kind=kind, shape=shape)
        fast = time.process_time() - began
        began, b, iterations, gaps = time.process_time(), np.zeros(600), 0, []
        lipschitz = smoothness(columns, kind, shape)
        for lam, a in zip(lambdas, ours.coefficients, strict=True):
            b, count = accelerated_gradient(columns, y, lam, b, kind=kind, shape=shape, lipschitz=lipschitz)
            iterations += count
            gaps.append(objective(x, y, a, lam, kind, shape) - objective(x, y, b, lam, kind, shape))
        slow = time.process_time() - began
        print(
            f"  {name}: {fast:.4f} s, gradient {slow:.2f} s in {iterations} iterations, {slow / fast:.0f} times"
        )
        print(f"    objective here less there {min(gaps):.1e} to {max(gaps):.1e}")


def one_path(which):
    """A process of its own: imports, compilation or its cache, and one path."""
    x, y, lambdas = problem()
    if which == "skglm":
        skglm_path(np.asfortranarray(x), y, lambdas)
    else:
        gaussian_path(np.ascontiguousarray(x.T), y, lambdas, kind=MCP, shape=SHAPE)


def processes():
    print("one path in a process of its own (second start: caches are warm), CPU seconds")
    import resource

    def spent(which):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, __file__, "path", which], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    for which in ("here", "skglm"):
        spent(which)
    here, there = spent("here"), spent("skglm")
    print(f"  here {here:.2f} s, skglm {there:.2f} s, {there / here:.1f} times")


if __name__ == "__main__":
    if sys.argv[1:2] == ["path"]:
        one_path(sys.argv[2])
    else:
        against_skglm()
        against_gradient()
        processes()
