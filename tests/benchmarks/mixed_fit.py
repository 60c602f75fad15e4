"""Mixed models: sleepstudy against statsmodels, and planted outlying rows and groups under each law.

    python tests/benchmarks/mixed_fit.py SLEEPSTUDY.csv [INSTEVAL.csv]

CPU seconds of one thread, interleaved; statsmodels where it is installed.
"""

from __future__ import annotations

import sys
import time
import warnings

import numpy as np

from bntools.core.datasets.tables import open_table
from bntools.tools.mixed_fit import gaussian
from bntools.tools.mixed_fit.data import MixedData, Term, read_data
from bntools.tools.mixed_fit.fit import mixed_fit
from bntools.tools.mixed_fit.gaussian import Products
from bntools.tools.mixed_fit.power_law import Groups, Point, climb, conjugate_gradient, ecme
from bntools.tools.mixed_fit.settings import Settings


def sleepstudy(path):
    with open_table(path) as table:
        data = read_data(table, Settings("Reaction", "Days", ("1+Days|Subject",)))
    times = []
    for _ in range(7):
        began = time.process_time()
        products = Products(data)
        theta = gaussian.fit(products, gaussian.start(data), False)
        ours = products.solve(theta)
        middle = time.process_time()
        theirs = None
        try:
            from statsmodels.regression.mixed_linear_model import MixedLM

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                theirs = MixedLM(data.y, data.x, data.terms[0].codes, exog_re=data.x).fit(reml=False)
        except ImportError:
            pass
        times.append((middle - began, time.process_time() - middle))
    mine, other = np.median(times, 0)
    restricted = products.solve(gaussian.fit(products, theta, True), True)
    print(
        f"sleepstudy, ML: deviance {ours.deviance:.4f} (lme4 1751.9393), beta {ours.beta.round(3)} (251.405, 10.467)"
    )
    print(f"  REML {restricted.deviance:.3f} (1743.628)")
    if theirs is not None:
        print(f"  {mine * 1e3:.1f} ms, statsmodels {other * 1e3:.1f} ms, {other / mine:.1f} times")
        print(f"  deviance of statsmodels {-2 * theirs.llf:.4f}")
    groups, t = Groups(data), products.triangles(theta)[0]
    start = Point(ours.beta, t, ours.sigma, 10.0)
    limit = -2 * groups.slope(start._replace(nu=1e7)).value
    print(f"  deviance at nu 1e7 less the Gaussian one: {limit - ours.deviance:.1e}")
    climbers = {
        "bfgs": lambda: (climb(groups, start, fixed_nu=False), 0),
        "ecme": lambda: ecme(groups, start, fixed_nu=False),
        "cg": lambda: conjugate_gradient(groups, start, fixed_nu=False),
    }
    for name, climber in climbers.items():
        began = time.process_time()
        point, steps = climber()
        spent = 1e3 * (time.process_time() - began)
        deviance = -2 * groups.slope(point).value
        print(
            f"  q-Gaussian, {name}: deviance {deviance:.4f}, nu {point.nu:.3f}, {spent:.0f} ms, {steps} steps"
        )


def simulated(seed, *, rows_off, groups_off, far=10.0, n=300, groups=30):
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % groups
    x = np.c_[np.ones(n), rng.standard_normal(n)]
    z = np.c_[np.ones(n), x[:, 1]]
    u = rng.standard_normal((groups, 2)) * [1.0, 0.3]
    y = x @ [1.0, 2.0] + (z * u[codes]).sum(1) + rng.standard_normal(n)
    bad = rng.random(n) < rows_off
    y[bad] += far * rng.standard_normal(bad.sum())
    worst = rng.permutation(groups)[: int(groups_off * groups)]
    y += np.isin(codes, worst) * far * rng.standard_normal(n)
    term = Term(z, ["(intercept)", "x"], "g", codes, [str(g) for g in range(groups)])
    return MixedData(y, x, ["(intercept)", "x"], [term], np.arange(n), 0)


def outliers(draws=12):
    print(f"error of the fixed effects, root mean square over {draws} draws; 300 rows, 30 groups")
    cases = (("nothing off", 0, 0, 0), ("10 % of rows off by 10 sd", 0.1, 0, 10),
             ("10 % of rows off by 30 sd", 0.1, 0, 30), ("10 % of groups off by 10 sd", 0, 0.1, 10))  # fmt: skip
    for what, rows_off, groups_off, far in cases:
        errors = {"gauss": [], "q": [], "row": []}
        for seed in range(draws):
            data = simulated(seed, rows_off=rows_off, groups_off=groups_off, far=far)
            for tails, collected in errors.items():
                collected.append(
                    mixed_fit(data, Settings("y", random=("1+x|g",), tails=tails)).asked.beta - [1, 2]
                )
        for tails, values in errors.items():
            intercept, slope = np.sqrt(np.mean(np.square(values), 0))
            print(f"  {what}, {tails}: slope {slope:.3f}, intercept {intercept:.3f}")


def insteval(path):
    with open_table(path) as table:
        data = read_data(table, Settings("y", "service", ("1|s", "1|d", "1|dept:service")))
    began = time.process_time()
    products = Products(data)
    solution = products.solve(gaussian.fit(products, gaussian.start(data), False))
    print(
        f"InstEval, 73,421 rows, students, lecturers and departments crossed: deviance {solution.deviance:.1f}"
    )
    print(f"  {time.process_time() - began:.0f} s")


if __name__ == "__main__":
    sleepstudy(sys.argv[1])
    outliers()
    if len(sys.argv) > 2:
        insteval(sys.argv[2])
