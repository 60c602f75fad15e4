"""bntools mixed-fit: the published fit of sleepstudy, a slow reference for every law, planted outliers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import multivariate_normal, multivariate_t

from bntools import cli
from bntools.core.datasets.tables import open_table
from bntools.core.errors import BnError
from bntools.tools.mixed_fit.data import MixedData, Term, parse_random, read_data
from bntools.tools.mixed_fit.fit import mixed_fit
from bntools.tools.mixed_fit.gaussian import Products, fit, start
from bntools.tools.mixed_fit.power_law import Groups, Point, climb, conjugate_gradient, ecme
from bntools.tools.mixed_fit.report import report
from bntools.tools.mixed_fit.settings import Settings

PAGE = Path(__file__).resolve().parents[3] / "man" / "man1" / "bntools-mixed-fit.1"


def term(rng, n, groups, effects, name):
    codes = np.concatenate([np.arange(groups), rng.integers(0, groups, n - groups)])
    z = np.c_[np.ones(n), rng.standard_normal((n, effects - 1))]
    return Term(z, ["(intercept)", "slope"][:effects], name, codes, [str(i) for i in range(groups)])


def simulated(seed=0, n=90, shapes=((8, 2),)) -> MixedData:
    rng = np.random.default_rng(seed)
    terms = [term(rng, n, groups, effects, f"g{i}") for i, (groups, effects) in enumerate(shapes)]
    x = np.c_[np.ones(n), rng.standard_normal(n)]
    y = x @ [1.0, 2.0] + 0.7 * rng.standard_normal(n)
    for t in terms:
        y = y + (t.z * rng.standard_normal((len(t.levels), t.z.shape[1]))[t.codes]).sum(1)
    return MixedData(y, x, ["(intercept)", "x"], terms, np.arange(n), 0)


def covariance(data: MixedData, triangles, sigma):
    """V of all rows, the slow way."""
    v = np.eye(len(data.y))
    for t, triangle in zip(data.terms, triangles, strict=True):
        same = t.codes[:, None] == t.codes[None]
        v += same * (t.z @ triangle @ triangle.T @ t.z.T)
    return sigma**2 * v


@pytest.mark.parametrize("shapes", [((8, 2),), ((8, 1), (11, 2)), ((5, 2), (4, 1), (9, 1))])
def test_the_profiled_deviance_is_that_of_the_multivariate_normal(shapes):
    data = simulated(1, shapes=shapes)
    products = Products(data)
    rng = np.random.default_rng(2)
    theta = start(data) + 0.3 * rng.standard_normal(len(start(data)))
    solution = products.solve(theta)
    triangles = products.triangles(theta)
    ordered = [triangles[products.order.index(i)] for i in range(len(shapes))]
    v = covariance(data, ordered, solution.sigma)
    law = multivariate_normal(data.x @ solution.beta, v)
    assert solution.deviance == pytest.approx(-2 * law.logpdf(data.y), abs=1e-8)
    inverse = np.linalg.inv(v)
    np.testing.assert_allclose(solution.covariance, np.linalg.inv(data.x.T @ inverse @ data.x), atol=1e-10)
    np.testing.assert_allclose(solution.beta, solution.covariance @ data.x.T @ inverse @ data.y, atol=1e-9)
    residual = inverse @ (data.y - data.x @ solution.beta)
    for t, triangle, effects in zip(data.terms, ordered, solution.effects, strict=True):
        modes = np.zeros((len(t.levels), t.z.shape[1]))
        np.add.at(modes, t.codes, t.z * residual[:, None])
        np.testing.assert_allclose(effects, solution.sigma**2 * modes @ triangle @ triangle.T, atol=1e-9)
    spread = [np.eye(len(t.levels))[t.codes].repeat(t.z.shape[1], 1) for t in data.terms]
    z = np.hstack([s * np.tile(t.z, len(t.levels)) for s, t in zip(spread, data.terms, strict=True)])
    whole = np.zeros((z.shape[1],) * 2)
    at = 0
    for t, triangle in zip(data.terms, ordered, strict=True):
        for _ in t.levels:
            whole[at : at + len(triangle), at : at + len(triangle)] = triangle
            at += len(triangle)
    zl = z @ whole
    variances = np.einsum("ij,jk,ik->i", zl, np.linalg.inv(zl.T @ zl + np.eye(len(whole))), zl)
    np.testing.assert_allclose(products.row_variances(theta, data), variances, atol=1e-9)


def test_the_power_law_is_the_multivariate_t_with_its_own_gradient():
    data = simulated(3)
    groups, t = Groups(data), np.array([[0.8, 0], [0.3, 0.5]])
    point = Point(np.array([0.9, 1.8]), t, 0.6, 5.0)
    slow = 0.0
    v = covariance(data, [t], 0.6)
    for g in range(8):
        rows = data.terms[0].codes == g
        law = multivariate_t(data.x[rows] @ point.beta, v[np.ix_(rows, rows)], df=5.0)
        slow += law.logpdf(data.y[rows])
    slope = groups.slope(point)
    assert slope.value == pytest.approx(slow, abs=1e-9)
    step = 1e-5
    along = {"beta": np.array([0, step]), "triangle": np.array([[0, 0], [step, 0]])}
    shifted = [
        (slope.beta[1], [point._replace(beta=point.beta + s * along["beta"]) for s in (1, -1)]),
        (slope.triangle[1, 0], [point._replace(triangle=t + s * along["triangle"]) for s in (1, -1)]),
        (slope.log_sigma, [point._replace(sigma=0.6 * np.exp(s * step)) for s in (1, -1)]),
        (slope.log_nu, [point._replace(nu=5 * np.exp(s * step)) for s in (1, -1)]),
    ]
    for analytic, (up, down) in shifted:
        numeric = (groups.slope(up).value - groups.slope(down).value) / (2 * step)
        assert analytic == pytest.approx(numeric, rel=1e-5)


def test_three_ways_up_reach_the_same_top():
    data = simulated(4, n=120, shapes=((15, 2),))
    rng = np.random.default_rng(0)
    data.y[data.terms[0].codes == 3] += 8 * rng.standard_normal((data.terms[0].codes == 3).sum())
    groups = Groups(data)
    first = Point(np.array([1.0, 2.0]), np.eye(2), 1.0, 8.0)
    top = groups.slope(climb(groups, first, fixed_nu=False)).value
    assert groups.slope(ecme(groups, first, fixed_nu=False)[0]).value == pytest.approx(top, abs=2e-4)
    assert groups.slope(conjugate_gradient(groups, first, fixed_nu=False)[0]).value == pytest.approx(
        top, abs=1e-4
    )
    shrunk = conjugate_gradient(groups, first, fixed_nu=False, l1=50.0)[0]
    assert shrunk.beta[1] == 0


def test_many_degrees_of_freedom_are_the_gaussian_model():
    data = simulated(5)
    normal = mixed_fit(data, Settings("y", random=("1|g",)))
    limit = mixed_fit(data, Settings("y", random=("1|g",), tails="q", nu=1e8))
    assert limit.asked.deviance == pytest.approx(normal.asked.deviance, abs=1e-4)
    np.testing.assert_allclose(limit.asked.beta, normal.asked.beta, atol=1e-4)
    rows = mixed_fit(data, Settings("y", random=("1|g",), tails="row", nu=1e8))
    np.testing.assert_allclose(rows.asked.beta, normal.asked.beta, atol=1e-4)


def test_outlying_rows_move_a_fit_with_row_tails_far_less():
    errors = {"gauss": [], "row": []}
    for seed in range(6):
        data = simulated(10 + seed, n=150, shapes=((12, 1),))
        rng = np.random.default_rng(seed)
        bad = rng.permutation(150)[:15]
        data.y[bad] += 15 * np.abs(rng.standard_normal(15)) * np.sign(data.x[bad, 1])
        for tails, collected in errors.items():
            fits = mixed_fit(data, Settings("y", random=("1|g",), tails=tails))
            collected.append(abs(fits.asked.beta[1] - 2))
            if tails == "row":
                worst = np.argsort(fits.asked.weights)[:8]
                assert np.isin(worst, bad).mean() > 0.8
    assert np.mean(errors["row"]) < 0.5 * np.mean(errors["gauss"])


def test_terms_are_read_as_people_write_them():
    assert parse_random("1+x|g") == [(["1", "x"], ["g"])]
    assert parse_random("x | g") == [(["1", "x"], ["g"])]
    assert parse_random("0+x|g") == [(["x"], ["g"])]
    assert parse_random("1|a/b") == [(["1"], ["a"]), (["1"], ["a", "b"])]
    assert parse_random("1|a:b") == [(["1"], ["a", "b"])]
    for bad in ("1", "|g", "1|", "1|a|b"):
        with pytest.raises(BnError):
            parse_random(bad)


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> str:
    rng = np.random.default_rng(0)
    lines = ["y,x,kind,school,class,row,one,n"]
    for i in range(120):
        school, room = "abcdef"[i % 6], i % 4
        y = 2 + 0.5 * i / 40 + ord(school) % 5 + rng.standard_normal()
        lines.append(f"{y},{i / 40},{'uv'[i % 2]},{school},{room},{i},k,{'' if i == 7 else 1.0 * i % 3}")
    path = tmp_path_factory.mktemp("mixed") / "t.csv"
    path.write_text("\n".join(lines))
    return str(path)


@pytest.fixture
def inside(capsys):
    def call(*words):
        status = cli.run(["mixed-fit", *map(str, words)])
        return status, *capsys.readouterr()

    return call


def keys(value) -> set[str]:
    if isinstance(value, list):
        return set().union(*map(keys, value)) if value else set()
    if not isinstance(value, dict):
        return set()
    return set(value).union(*(keys(v) for key, v in value.items() if key not in ("groups", "effects_of")))


@pytest.mark.parametrize("tails", ["gauss", "q", "row"])
def test_the_report_is_documented_and_written(inside, table, tmp_path, tails):
    words = ["--target", "y", "--fixed", "x+kind", "--random", "1+x|school", "--tails", tails, "--effects"]
    out = tmp_path / "fit.json"
    status, text, notes = inside(table, *words, "-o", out, "--plot", tmp_path / "p.svg")
    assert status == 0, notes
    result = json.loads(text)
    assert json.loads(out.read_text()) == result
    assert [entry["name"] for entry in result["fixed"]] == ["(intercept)", "x", "kind=v"]
    page = PAGE.read_text().replace("\\", "")
    for key in keys(result):
        assert re.search(rf"\b{re.escape(key)}\b", page), key
    status, _, text = inside(table, *words, "-o", out)
    assert status == 2
    assert "exists" in text


def test_nested_groups_missing_rows_and_a_singular_fit_are_said(inside, table):
    words = ["--target", "y", "--fixed", "x:n", "--random", "1|school/class", "--json"]
    status, text, notes = inside(table, *words)
    assert status == 0, notes
    result = json.loads(text)
    assert result["rows_missing"] == 1
    assert [term["group"] for term in result["random"]] == ["school", "school:class"]
    assert [term["groups"] for term in result["random"]] == [6, 12]
    assert result["singular"] == any(term["singular"] for term in result["random"])
    assert ("singular" in notes) == result["singular"]
    assert result["singular"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "no --random term"),
        (["--random", "1"], 2, "no random term"),
        (["--random", "1|row"], 3, "120 groups for 120 rows"),
        (["--random", "1|one"], 3, "has one group"),
        (["--random", "1|nothing"], 2, "no column nothing"),
        (["--random", "1|school", "--fixed", "x+x"], 3, "depend on each other"),
        (["--random", "1|school", "--fixed", "y"], 2, "among its own explanations"),
        (["--random", "1|school", "--random", "1|class", "--tails", "q"], 2, "one random term"),
        (["--random", "1|school", "--reml", "--tails", "row"], 2, "--reml is for Gaussian"),
        (["--random", "1|school", "--nu", "3"], 2, "--nu goes with"),
    ],
)
def test_what_cannot_be_done_is_said(inside, table, words, code, message):
    status, _, text = inside(table, "--target", "y", *words)
    assert status == code
    assert message in text


@pytest.mark.real
def test_sleepstudy_has_its_published_fit(run, tmp_path):
    fetched = run("fetch", "sleepstudy", "-o", tmp_path / "lme4")
    assert fetched.returncode == 0, fetched.stderr
    settings = Settings("Reaction", "Days", ("1+Days|Subject",))
    with open_table(str(tmp_path / "lme4" / "sleepstudy.csv")) as table:
        data = read_data(table, settings)
    result = report(data, settings, mixed_fit(data, settings), effects=False)
    assert result["deviance"] == pytest.approx(1751.9393, abs=1e-4)
    assert [entry["value"] for entry in result["fixed"]] == pytest.approx([251.405, 10.467], abs=1e-3)
    restricted = Products(data).solve(fit(Products(data), start(data), True), True)
    assert restricted.deviance == pytest.approx(1743.628, abs=1e-3)
    tails = mixed_fit(data, Settings("Reaction", "Days", ("1+Days|Subject",), tails="q")).asked
    assert tails.deviance == pytest.approx(1723.45, abs=0.01)
