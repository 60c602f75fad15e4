"""Dimensions come out where they are known, and do not depend on what does not matter."""

from __future__ import annotations

import numpy as np
import pytest

from bntools.core.errors import BnError
from bntools.kernels.neighbours.exact import nearest
from bntools.tools.data_dim import estimators
from bntools.tools.data_dim.calibrated import WEIGHTS, Statistics, calibrate, correction, readings, statistics
from bntools.tools.data_dim.dimension import NAMES, Settings, data_dimension
from bntools.tools.data_dim.isotropic import FAMILIES, expected_log_distances

QUICK = Settings(estimators=("calibrated", "mle"))


def sample(family: str, d: int, n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n, d + (family == "sphere")))
    if family != "gaussian":
        points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points * rng.random((n, 1)) ** (1 / d) if family == "ball" else points


def value(points: np.ndarray, name: str = "calibrated", settings: Settings = QUICK) -> float:
    return data_dimension(points, settings)["estimators"][name]["value"]


@pytest.mark.parametrize("d", [2, 5, 10, 20])
def test_spheres_have_their_dimension_and_the_interval_holds_it(d):
    found = data_dimension(sample("sphere", d, 2000), QUICK)["dimension"]
    assert found["value"] == pytest.approx(d, rel=0.07)
    assert found["low"] < d < found["high"]


def test_what_the_calibration_is_for():
    """At 30 dimensions the plain estimate is a third too low."""
    points = sample("gaussian", 30, 1500)
    assert value(points, "mle") < 22
    assert value(points) == pytest.approx(30, rel=0.1)


@pytest.mark.parametrize(
    ("family", "d", "n"),
    [(f, d, n) for f in FAMILIES for d, n in ((1, 200), (3, 200), (12, 300), (60, 300))],
)
def test_expected_distances_are_what_simulation_gives(family, d, n):
    """Quadrature against drawn points; margin: four standard errors of the simulation, its points not independent."""
    drawn = [np.log(nearest(sample(family, d, n, s), np.arange(n), 20).distances) for s in range(12)]
    expected = expected_log_distances(family, d, n, 20)
    for near, far in ((1, 2), (1, 5), (4, 20)):
        ratios = [(logs[:, far - 1] - logs[:, near - 1]).mean() for logs in drawn]
        margin = 4 * np.std(ratios, ddof=1) / np.sqrt(len(ratios)) + 0.004 / d
        assert expected[far - 1] - expected[near - 1] == pytest.approx(np.mean(ratios), abs=margin)


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("count", [100, 1000, 10**7])
def test_reading_a_curve_off_gives_the_dimension_back(family, count):
    for d in (1.5, 4, 17, 90, 600):
        logs = expected_log_distances(family, d, count, 20)
        found = np.array([-np.log(logs[k - 1] - logs[: k - 1].mean()) for k in WEIGHTS])
        weighted = {name: values @ list(WEIGHTS.values()) for name, values in readings(found, count).items()}
        agreeing = Statistics(found, float(np.mean(list(weighted.values()))))
        assert calibrate(agreeing, count).families[family] == pytest.approx(d, rel=0.01)


def test_scale_shift_rotation_and_order_do_not_matter():
    rng, points = np.random.default_rng(1), sample("sphere", 3, 700)
    turn = np.linalg.qr(rng.normal(size=(9, 9)))[0]
    wide = np.hstack([points, np.zeros((700, 5))])
    base = value(points)
    for changed in (7e-5 * points, points + 3, wide, wide @ turn, rng.permutation(points)):
        assert value(changed) == pytest.approx(base, rel=1e-6)


def test_duplicates_nan_rows_and_constant_columns_change_nothing_and_are_counted():
    points = sample("ball", 3, 400)
    bad = np.full((2, 3), np.nan)
    bad[1] = [np.inf, 0, 0]
    full = np.hstack([np.vstack([points, points[:50], bad]), np.full((452, 2), 4.0)])
    report, clean = data_dimension(full, QUICK), data_dimension(points, QUICK)
    assert report["dimension"] == clean["dimension"]
    assert report["n_duplicates"] == 50
    assert report["dropped"] == {"rows": 2, "columns": 2}
    assert value(np.vstack([points, points])) == value(points)


def test_near_duplicates_within_rounding_are_no_neighbours():
    """Copies that differ in the last bits would make the dimension of the smallest scale anything."""
    points = sample("gaussian", 6, 500).astype(np.float32)
    copies = np.nextafter(points[:40], np.float32(9))
    report = data_dimension(np.vstack([points, copies]), QUICK)
    assert report["n_duplicates"] == 80
    assert report["dimension"]["value"] == pytest.approx(value(points), rel=0.1)


@pytest.mark.parametrize(
    ("points", "what"),
    [
        (np.ones((100, 3)), "all 100 points are the same"),
        (np.full((100, 3), np.nan), "NaN"),
        (np.arange(20.0), "20 distinct points are too few"),
        (np.repeat(np.eye(5), 30, 0), "5 distinct points"),
        (np.zeros((0, 4)), "holds no points"),
    ],
)
def test_points_without_a_dimension_are_refused(points, what):
    with pytest.raises(BnError, match=what) as caught:
        data_dimension(points)
    assert caught.value.code == 3


def test_too_few_points_to_calibrate_still_have_a_plain_estimate():
    points = sample("ball", 3, 80)
    with pytest.raises(BnError, match="too few for the calibrated") as caught:
        data_dimension(points)
    assert caught.value.code == 3
    assert "--estimator gride" in str(caught.value.hint)
    assert value(points, "gride", Settings(estimators=("gride",))) == pytest.approx(3, rel=0.3)


def named(report: dict) -> set[str]:
    return {warning["name"] for warning in report["warnings"]}


@pytest.mark.parametrize(("levels", "columns"), [(30, 2), (10, 3), (45, 2), (6, 4), (200, 2)])
@pytest.mark.parametrize("unit", [1.0, 0.1, 2.0**-7])
def test_points_of_a_full_grid_have_as_many_dimensions_as_columns(levels, columns, unit):
    points = unit * np.random.default_rng(levels).integers(0, levels, (2000, columns))
    report = data_dimension(points, Settings())
    assert "grid" in named(report)
    assert report["dimension"]["value"] == pytest.approx(columns, rel=0.1)
    assert all(each["value"] <= columns for each in report["estimators"].values())


def test_every_null_and_every_tie_is_explained():
    """Corners of a cube of many dimensions: distances are tied, and the grid is too fine to move points in."""
    report = data_dimension(np.random.default_rng(0).integers(0, 2, (300, 24)), Settings())
    assert "ties" in named(report)
    null = [name for name, each in report["estimators"].items() if None in (each["value"], each["high"])]
    assert bool(null) == ("no-estimate" in named(report))
    assert all(each["value"] is None or each["value"] <= 24 for each in report["estimators"].values())


def test_rows_that_repeat_up_to_a_tiny_jitter_are_warned_of_and_clean_points_are_not():
    points = sample("ball", 3, 500)
    twins = points + 1e-9 * np.random.default_rng(0).normal(size=points.shape)
    assert "twins" in named(data_dimension(np.vstack([points, twins]), QUICK))
    for d in (1, 2, 6):
        assert named(data_dimension(sample("gaussian", d, 500), QUICK)) == set()
    coarse = data_dimension(np.round(sample("gaussian", 2, 1000), 1), QUICK)
    assert "grid" in named(coarse)
    assert coarse["dimension"]["value"] == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("size", [1e160, 1e-200, 1e300, 1e-300, 1e30])
def test_the_size_of_the_numbers_changes_distances_alone(size):
    points = sample("ball", 3, 300)
    plain, scaled = data_dimension(points, QUICK), data_dimension(points * size, QUICK)
    assert scaled["dimension"]["value"] == pytest.approx(plain["dimension"]["value"], rel=1e-6)
    for before, after in zip(plain["scale"], scaled["scale"], strict=True):
        assert after["distance"] == pytest.approx(before["distance"] * size, rel=1e-6)


def test_leading_axes_are_points_and_threads_and_queries_only_cost():
    points = sample("sphere", 3, 900)
    base = data_dimension(points, Settings(threads=1))
    assert data_dimension(points.reshape(30, 30, 4), Settings(threads=3)) == base
    assert tuple(base["estimators"]) == NAMES
    fewer = data_dimension(points, Settings(estimators=("mle",), queries=300, seed=5))
    assert fewer["n_queries"] == 300
    assert fewer["dimension"]["low"] < base["estimators"]["mle"]["value"] < fewer["dimension"]["high"]


def test_estimates_are_those_of_scikit_dimension():
    """Where definitions agree. It keeps strict inequalities and whole neighbourhoods, as we do."""
    skdim = pytest.importorskip("skdim", reason="scikit-dimension is not installed")
    points = sample("ball", 5, 600, seed=3)
    found = data_dimension(points, Settings())["estimators"]
    r = nearest(points, np.arange(600), 20).distances
    assert found["twonn_fit"]["value"] == pytest.approx(skdim.id.TwoNN().fit(points).dimension_, rel=1e-9)
    plain = skdim.id.TwoNN(discard_fraction=0, method="mle").fit(points).dimension_
    assert found["twonn"]["value"] == pytest.approx(plain, rel=1e-9)
    assert found["mle"]["value"] == pytest.approx(skdim.id.MLE().fit(points).dimension_, rel=1e-9)
    # its likelihood has N - 1 in place of N, a change of at most 1 / N
    assert estimators.gride(r, 2, 4) == pytest.approx(
        skdim.id.GRIDE(n1=2).fit(points).dimension_, rel=1 / 600
    )
    # C(r) there is over N^2, ours over pairs: the ratio is the same
    assert found["corrint"]["value"] == pytest.approx(skdim.id.CorrInt().fit(points).dimension_, rel=1e-9)


@pytest.mark.slow
def test_the_error_is_well_below_that_of_scikit_dimension_on_its_own_manifolds():
    """0.46 to 0.61 of it over 12 draws of 500 to 2500 points (tests/benchmarks/data_dim.py)."""
    skdim = pytest.importorskip("skdim", reason="scikit-dimension is not installed")
    bench = skdim.datasets.BenchmarkManifolds(random_state=20)
    truth = bench.truth["Intrinsic Dimension"].to_dict()
    off = {"ours": [], "twonn": [], "gride": []}
    for name, points in bench.generate("all", n=1000).items():
        found = data_dimension(points, Settings(estimators=("calibrated",)))["dimension"]["value"]
        others = skdim.id.TwoNN().fit(points).dimension_, skdim.id.GRIDE().fit(points).dimension_
        for key, estimate in zip(off, (found, *others), strict=True):
            off[key].append(abs(estimate / truth[name] - 1))
    ours, *best = (np.mean(values) for values in off.values())
    assert ours < 0.62 * min(best)


@pytest.mark.slow
def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    """40 Gaussian samples, 95 % and wider: fewer than 34 hits has probability 0.003 at 95 %."""
    hits = 0
    for seed in range(40):
        found = data_dimension(sample("gaussian", 6, 500, seed), QUICK)["dimension"]
        hits += found["low"] <= 6 <= found["high"]
    assert hits >= 34


def test_statistics_of_a_flat_space_are_its_dimension():
    """Torus without an edge: the weights add up to 1, so that no scale is preferred."""
    rng = np.random.default_rng(0)
    angles = 2 * np.pi * rng.random((4000, 2))
    points = np.hstack([np.cos(angles), np.sin(angles)])
    near = nearest(points, np.arange(4000), 20)
    found = statistics(near.distances, estimators.squared_cosines(points, near.indices[:, :8]))
    assert sum(WEIGHTS.values()) == pytest.approx(1)
    assert np.exp(found.ratios) == pytest.approx(2, rel=0.06)
    assert np.exp(found.angle) == pytest.approx(2, rel=0.03)


def test_angles_are_those_of_a_loop_and_a_pair_at_one_place_has_none():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(30, 3))
    points[1] = points[0]
    rows = np.array([[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]])
    for row, (total, count) in zip(rows, estimators.squared_cosines(points, rows), strict=True):
        apart = [
            points[a] - points[b] for a, b in row.reshape(-1, 2) if not np.array_equal(points[a], points[b])
        ]
        squares = [(u @ v) ** 2 / (u @ u) / (v @ v) for i, u in enumerate(apart) for v in apart[i + 1 :]]
        assert (total, count) == pytest.approx((sum(squares), len(squares)))


def test_angles_correct_what_uneven_density_does_to_distances():
    """A cloud that is dense in the middle and thin outside: distances alone say a sixth too little."""
    rng = np.random.default_rng(2)
    points = rng.standard_normal((1000, 9)) ** 3
    near = nearest(points, np.arange(1000), 20)
    found = statistics(near.distances, estimators.squared_cosines(points, near.indices[:, :8]))
    middle = np.mean([values @ list(WEIGHTS.values()) for values in readings(found.ratios, 1000).values()])
    assert np.exp(middle) < calibrate(found, 1000).value < 9
    # a small gap moves the estimate to the angles', a large one, a sign of curvature, away from them; both are bounded
    assert 0.6 < correction(0.05) / 0.05 < 1.1
    assert -0.25 < correction(0.8) < -0.05
