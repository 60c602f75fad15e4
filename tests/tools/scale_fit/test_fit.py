"""The fit as a whole: known laws come back, published ones are matched, intervals hold what they say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bntools.core.errors import BnError
from bntools.tools.scale_fit import Settings, fit_scaling_law, training_runs
from bntools.tools.scale_fit.fit import choose_law, polish
from bntools.tools.scale_fit.objective import Problem, objective
from bntools.tools.scale_fit.report import parameters
from bntools.tools.scale_fit.starts import starts

TRUE = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28}  # Hoffmann et al., arXiv 2203.15556
POINTS = Path(__file__).with_name("chinchilla.jsonl")
QUICK = Settings(bootstrap=0)


def design(count, seed=0):
    """Sizes and data over the ranges of real sweeps."""
    random = np.random.default_rng(seed)
    return 10 ** random.uniform(7.5, 10, count), 10 ** random.uniform(9, 11.5, count)


def chinchilla(n, d):
    return TRUE["E"] + TRUE["A"] * n ** -TRUE["alpha"] + TRUE["B"] * d ** -TRUE["beta"]


def published(drop=0):
    """The 245 runs read off Chinchilla's figure 4 (Besiroglu et al., arXiv 2404.10102), less those of highest loss."""
    rows = [json.loads(line) for line in POINTS.read_text().splitlines()]
    rows = sorted(rows, key=lambda row: row["loss"])[: len(rows) - drop]
    return training_runs([r["loss"] for r in rows], N=[r["N"] for r in rows], C=[r["C"] for r in rows])


def values(fit):
    return {name: float(value[0]) for name, value in fit.coefficients(fit.theta[None]).items()}


@pytest.mark.parametrize("count", [6, 9, 40])
def test_chinchillas_law_comes_back_from_its_own_losses(count):
    n, d = design(count)
    assert values(fit_scaling_law(training_runs(chinchilla(n, d), N=n, D=d), QUICK)) == pytest.approx(
        TRUE, rel=1e-6
    )


def test_a_law_of_one_variable_comes_back():
    x = np.geomspace(1e3, 1e9, 7)
    for name in ("N", "D", "C"):
        fit = fit_scaling_law(training_runs(0.4 + 30 * x**-0.45, **{name: x}), QUICK)
        assert fit.variables == (name,)
        assert values(fit) == pytest.approx({"E": 0.4, "A": 30, "alpha": 0.45}, rel=1e-6)
        bare = fit_scaling_law(training_runs(30 * x**-0.45, **{name: x}), replace(QUICK, irreducible=False))
        assert values(bare) == pytest.approx({"A": 30, "alpha": 0.45}, rel=1e-6)


@pytest.mark.parametrize("floor", [0.0, 1.5])
def test_kaplans_law_comes_back_in_kaplans_own_constants(floor):
    n, d = design(30)
    loss = floor + ((8.8e13 / n) ** (0.076 / 0.095) + 5.4e13 / d) ** 0.095  # arXiv 2001.08361, table 2
    found = parameters(
        fit_scaling_law(training_runs(loss, N=n, D=d), replace(QUICK, law="kaplan", irreducible=floor > 0))
    )
    wanted = {"alpha": 0.076, "beta": 0.095, "N_c": 8.8e13, "D_c": 5.4e13} | ({"E": floor} if floor else {})
    assert {name: found[name]["value"] for name in wanted} == pytest.approx(wanted, rel=1e-4)


def test_the_published_fit_of_chinchillas_runs_is_matched_or_bettered():
    """240 runs, objective 1.018274e-3 by arXiv 2404.10102's program; A and B, in a flat valley, do not compare."""
    fit = fit_scaling_law(published(5), QUICK)
    found = values(fit)
    assert fit.objective <= 1.01828e-3
    assert found["E"] == pytest.approx(1.817, abs=0.002)
    assert found["alpha"] == pytest.approx(0.348, abs=0.002)
    assert found["beta"] == pytest.approx(0.366, abs=0.002)
    assert fit.reached == fit.tried


def test_standard_errors_of_the_published_bootstrap_are_matched():
    """arXiv 2404.10102: alpha 0.0154, beta 0.0206, from 4,000 resamples."""
    fit = fit_scaling_law(published(5), Settings(resample="runs", bootstrap=1000))
    spread = fit.samples.std(0, ddof=1)
    # a standard deviation of 1,000 normal replicates has a relative standard error of 2.2 %
    assert spread[1] == pytest.approx(0.0154, rel=0.1)
    assert spread[3] == pytest.approx(0.0206, rel=0.1)


def test_many_random_starts_find_nothing_better():
    optimize = pytest.importorskip("scipy.optimize", reason="scipy is the reference")
    fit = fit_scaling_law(published(5), QUICK)
    random = np.random.default_rng(0)

    def plain(theta):
        value, gradient = objective(fit.problem, theta[None])
        return float(value[0]), gradient[0]

    for _ in range(25):
        start = np.array(
            [random.normal(-1, 1), random.uniform(0, 2), random.normal(-1, 1), random.uniform(0, 2), 0.5]
        )
        found = optimize.minimize(
            plain, start, jac=True, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-10}
        )
        assert fit.objective <= found.fun * (1 + 1e-6)


def noisy(seed, count=60, scale=0.01):
    n, d = design(count, seed)
    loss = chinchilla(n, d) * np.exp(scale * np.random.default_rng(seed + 1).normal(size=count))
    return n, d, loss


def test_units_change_the_coefficients_and_nothing_else():
    n, d, loss = noisy(3)
    plain = fit_scaling_law(training_runs(loss, N=n, D=d), Settings(bootstrap=50))
    scaled = fit_scaling_law(training_runs(loss, N=n / 1e6, D=d / 1e9), Settings(bootstrap=50))
    assert scaled.objective == pytest.approx(plain.objective, rel=1e-9)
    before, after = values(plain), values(scaled)
    for name in ("alpha", "beta", "E"):
        assert after[name] == pytest.approx(before[name], rel=1e-5)
    assert after["A"] == pytest.approx(before["A"] * 1e6 ** -before["alpha"], rel=1e-4)
    assert after["B"] == pytest.approx(before["B"] * 1e9 ** -before["beta"], rel=1e-4)
    assert scaled.samples == pytest.approx(plain.samples, rel=1e-3, abs=1e-4)


def test_the_order_of_the_runs_does_not_matter():
    n, d, loss = noisy(4)
    order = np.random.default_rng(0).permutation(len(n))
    plain = fit_scaling_law(training_runs(loss, N=n, D=d), QUICK)
    mixed = fit_scaling_law(training_runs(loss[order], N=n[order], D=d[order]), QUICK)
    assert mixed.objective == pytest.approx(plain.objective, rel=1e-9)
    assert values(mixed) == pytest.approx(values(plain), rel=1e-4)


def test_compute_stands_for_data_and_for_size():
    n, d, loss = noisy(5)
    plain = values(fit_scaling_law(training_runs(loss, N=n, D=d), QUICK))
    assert values(fit_scaling_law(training_runs(loss, N=n, C=6 * n * d), QUICK)) == pytest.approx(
        plain, rel=1e-5
    )
    assert values(fit_scaling_law(training_runs(loss, D=d, C=6 * n * d), QUICK)) == pytest.approx(
        plain, rel=1e-5
    )


def test_threads_do_not_change_a_bit():
    n, d, loss = noisy(6, 400)
    found = [
        fit_scaling_law(training_runs(loss, N=n, D=d), Settings(bootstrap=300, threads=t)).samples
        for t in (1, 2, 5)
    ]
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])
    other = fit_scaling_law(training_runs(loss, N=n, D=d), Settings(bootstrap=300, seed=1)).samples
    assert not np.array_equal(found[0], other)


def test_replicates_started_at_the_fit_end_where_fresh_searches_end():
    fit = fit_scaling_law(published(5), Settings(bootstrap=1))
    random = np.random.default_rng(7)
    for _ in range(12):
        drawn = random.integers(0, 240, 240)
        problem = Problem(fit.law, fit.problem.x[:, drawn], fit.problem.y[drawn])
        counts = np.bincount(drawn, minlength=240)[None].astype(float)
        warm = polish(fit.problem, fit.theta[None], counts, 1e-9).value[0]
        cold = polish(problem, starts(problem, 24)).value.min()
        assert warm <= cold * (1 + 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("resample", ["weights", "runs"])
def test_intervals_hold_the_truth_as_often_as_they_say(resample):
    """95 % intervals of alpha from 120 seeded samples of 40 runs; the margin is three standard errors."""
    held = []
    for seed in range(120):
        n, d, loss = noisy(1000 + 2 * seed, 40)
        fit = fit_scaling_law(
            training_runs(loss, N=n, D=d),
            Settings(starts=8, bootstrap=150, resample=resample, seed=seed, threads=1),
        )
        low, high = np.percentile(fit.samples[:, 1], [2.5, 97.5])
        held.append(low <= TRUE["alpha"] <= high)
    assert np.mean(held) == pytest.approx(0.95, abs=3 * np.sqrt(0.95 * 0.05 / 120))


def test_more_runs_than_are_searched_still_give_the_minimum_over_all():
    n, d, loss = noisy(8, 9000)
    fit = fit_scaling_law(training_runs(loss, N=n, D=d), replace(QUICK, starts=4))
    assert values(fit)["alpha"] == pytest.approx(TRUE["alpha"], abs=0.01)
    again = polish(fit.problem, fit.theta[None] + 0.01)
    assert fit.objective <= again.value[0] * (1 + 1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_few_runs_with_ties_and_repeats_do_not_break_the_bootstrap(seed):
    n = np.repeat([1e7, 1e8, 1e9], 4)
    d = np.tile([1e9, 1e9, 1e10, 1e11], 3)
    loss = chinchilla(n, d) * (1 + 1e-3 * np.random.default_rng(seed).normal(size=12))
    for resample in ("weights", "runs"):
        fit = fit_scaling_law(training_runs(loss, N=n, D=d), Settings(bootstrap=60, resample=resample))
        assert np.isfinite(fit.samples).all()


def test_laws_the_runs_cannot_have_are_refused():
    x = np.geomspace(1, 100, 9)
    fixed = training_runs(1 + 1 / x, N=x, D=np.full(9, 5.0))
    assert choose_law(fixed, QUICK)[1] == ("N",)
    with pytest.raises(BnError, match="D does not"):
        choose_law(fixed, replace(QUICK, law="chinchilla"))
    with pytest.raises(BnError, match="--x D"):
        choose_law(fixed, replace(QUICK, x="D"))
    with pytest.raises(BnError, match="one point"):
        choose_law(training_runs(x, N=np.ones(9)), QUICK)
    with pytest.raises(BnError, match="3 runs cannot fix 3") as caught:
        fit_scaling_law(training_runs(x[:3], N=x[:3]), QUICK)
    assert caught.value.code == 3
