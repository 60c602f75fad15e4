"""Intervals hold what they say, and what the runs leave open is null: over draws of runs, not over one table."""

from __future__ import annotations

import numpy as np
import pytest

from bntools.tools.scale_fit import Settings, fit_report, fit_scaling_law, training_runs
from bntools.tools.scale_fit.fit import interval, resampling

TRUE = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28}
POINTS = [{"N": 1e9, "D": 2e10}, {"N": 1e9, "D": 1e12}]


def law(n, d):
    return TRUE["E"] + TRUE["A"] * n ** -TRUE["alpha"] + TRUE["B"] * d ** -TRUE["beta"]


def sweep(count, noise, seed):
    random = np.random.default_rng(seed)
    n, d = 10 ** random.uniform(7.5, 10, count), 10 ** random.uniform(9, 11.5, count)
    return n, d, law(n, d) * np.exp(noise * random.normal(size=count))


def report(n, d, loss, **more):
    settings = Settings(**({"bootstrap": 40, "starts": 6, "threads": 1} | more))
    return fit_report(fit_scaling_law(training_runs(loss, N=n, D=d), settings), compute=[1e21], points=POINTS)


def names(found):
    return [warning["name"] for warning in found["warnings"]]


def intervals(value):
    """Every {value, low, high} of a report."""
    if isinstance(value, dict):
        if {"value", "low", "high"} <= set(value):
            yield value
        for inner in value.values():
            yield from intervals(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from intervals(inner)


@pytest.mark.parametrize("noise", [0.0, 0.005])
@pytest.mark.parametrize("count", [6, 7, 9, 15, 40])
def test_a_value_lies_in_its_own_interval(count, noise):
    for each in intervals(report(*sweep(count, noise, count))):
        if each["low"] is not None:
            assert each["low"] <= each["value"] <= each["high"]


@pytest.mark.parametrize("count", [6, 7])
def test_runs_that_hardly_outnumber_parameters_have_no_intervals(count):
    for seed in range(4):
        found = report(*sweep(count, 0.005, seed))
        assert "few-runs" in names(found)
        assert all(each["low"] is None and each["high"] is None for each in intervals(found["parameters"]))


def test_replicates_are_made_up_where_runs_are_few():
    assert [resampling(Settings(), free) for free in (1, 4, 19, 20, 200)] == ["noise"] * 3 + ["weights"] * 2
    assert resampling(Settings(resample="runs"), 4) == "runs"
    assert report(*sweep(9, 0.005, 0))["bootstrap"]["resample"] == "noise"


@pytest.mark.slow
@pytest.mark.parametrize(("count", "draws"), [(9, 30), (15, 30), (60, 15)])
def test_intervals_of_few_runs_hold_the_truth_as_often_as_they_say(count, draws):
    """Five parameters of each draw, which are correlated: the margin is three standard errors of the draws alone."""
    held = []
    for seed in range(draws):
        n, d, loss = sweep(count, 0.005, 100 + seed)
        fit = fit_scaling_law(
            training_runs(loss, N=n, D=d), Settings(bootstrap=150, starts=8, seed=seed, threads=1)
        )
        samples = fit.coefficients(fit.samples)
        ends = [interval(fit, float(np.median(samples[name])), samples[name]) for name in TRUE]
        held.append(
            [each["low"] <= TRUE[name] <= each["high"] for name, each in zip(TRUE, ends, strict=True)]
        )
    assert np.mean(held) >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / draws)


def _pairs(random, count):
    """Designs that leave something open, with what it is."""
    n, d = 10 ** random.uniform(7.5, 10, count), 10 ** random.uniform(9, 11.5, count)
    everything, of_n, of_d = set(TRUE), {"A", "alpha", "E"}, {"B", "beta", "E"}
    return [
        (n, 20 * n, everything),
        (n, 20 * n * np.exp(0.02 * random.normal(size=count)), everything),
        (n, 1e20 / n, everything),
        (random.choice([1e8, 3e9], count), d, of_n),
        (n, random.choice([1e9, 3e11], count), of_d),
    ]


@pytest.mark.parametrize("noise", [0.0, 0.003])
@pytest.mark.parametrize("seed", range(2, 4))
def test_what_the_runs_leave_open_is_null_and_named(seed, noise):
    random = np.random.default_rng(seed)
    for n, d, wanted in _pairs(random, 20):
        found = report(n, d, law(n, d) * np.exp(noise * random.normal(size=20)))
        null = {name for name, each in found["parameters"].items() if each["value"] is None}
        assert wanted <= null
        assert "not-identified" in names(found)
        if wanted != set(TRUE):
            assert null == wanted
        optimum = found["compute_optimal"]
        assert all(each["value"] is None and each["low"] is None for each in intervals(optimum))


def test_a_prediction_among_the_runs_is_kept_where_one_beside_them_is_null():
    n = 10 ** np.random.default_rng(0).uniform(7.5, 10, 20)
    found = report(n, 20 * n, law(n, 20 * n) * np.exp(0.003 * np.random.default_rng(1).normal(size=20)))
    on, off = (each["loss"] for each in found["predictions"])
    assert on["low"] <= law(1e9, 2e10) <= on["high"]
    assert off == {"value": None, "low": None, "high": None}
    assert "not-predictable" in names(found)


def test_what_the_runs_do_determine_is_not_null():
    for seed in range(6):
        for count, noise in ((6, 0.0), (9, 0.005), (15, 0.005), (60, 0.01)):
            found = report(*sweep(count, noise, seed), bootstrap=0)
            assert not {"not-identified", "not-predictable", "growing"} & set(names(found))
            assert all(each["value"] is not None for each in found["parameters"].values())


@pytest.mark.parametrize("change", [(1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("noise", [0.0, 0.002])
def test_losses_that_grow_with_size_have_no_best_division(change, noise):
    n, d, _ = sweep(25, 0, 3)
    sign = [-1 if grows else 1 for grows in change]
    loss = 2 + 30 * n.min() ** -0.3 * (n / n.min()) ** (-0.2 * sign[0]) + (d / d.min()) ** (-0.2 * sign[1])
    found = report(n, d, loss * np.exp(noise * np.random.default_rng(0).normal(size=25)))
    assert {"growing", "not-identified"} & set(names(found))
    assert all(each["value"] is None for each in intervals(found["compute_optimal"]))


@pytest.mark.parametrize("count", [9, 15, 40])
def test_normal_noise_is_not_called_an_outlier(count):
    """40 clean draws at 5 %: six or more warnings have a probability of 1.4 %."""
    warned = sum("outlier" in names(report(*sweep(count, 0.005, seed), bootstrap=0)) for seed in range(40))
    assert warned <= 5


@pytest.mark.parametrize("count", [15, 40])
def test_a_run_that_went_wrong_is_still_found(count):
    seen = 0
    for seed in range(10):
        n, d, loss = sweep(count, 0.003, seed)
        middle = int(
            np.argsort(np.abs(np.log(n) - np.log(n).mean()) + np.abs(np.log(d) - np.log(d).mean()))[0]
        )
        loss[middle] *= 1.15
        found = report(n, d, loss, bootstrap=0)
        lines = [warning["lines"] for warning in found["warnings"] if warning["name"] == "outlier"]
        seen += lines == [[middle + 1]]
    assert seen >= 8
