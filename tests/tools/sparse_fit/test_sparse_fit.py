"""bntools sparse-fit: a planted model comes back in the table's units, and damage is named."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bntools import cli
from bntools.core.datasets.tables import open_table
from bntools.core.errors import BnError
from bntools.tools.sparse_fit.design import read_design
from bntools.tools.sparse_fit.fit import report, sparse_fit
from bntools.tools.sparse_fit.path import extended_bic, fit_path, fold_of, lambda_grid, null_loss
from bntools.tools.sparse_fit.settings import Settings

PAGE = Path(__file__).resolve().parents[3] / "man" / "man1" / "bntools-sparse-fit.1"


@contextlib.contextmanager
def silent(what, total):
    yield lambda count: None


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> str:
    """y = 5 + 2 x.0 - 3 x.1 + noise over columns of different scales; b its sign; k counts."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((150, 60)) * np.geomspace(0.1, 10, 60) + 7
    x[3, 20], x[:, 21] = np.nan, 4.0
    score = 20 * (x[:, 0] - 7) - 15 * (x[:, 1] - 7)
    y = 5 + score + 0.5 * rng.standard_normal(150)
    tables = {"x": x, "y": y, "b": (y > 5).astype(np.int64), "k": rng.poisson(np.exp(0.4 * score))}
    path = tmp_path_factory.mktemp("sparse") / "t.safetensors"
    save_file(tables, path)
    return str(path)


def fit(path: str, leave_out: tuple[str, ...] = (), **options):
    settings = Settings(**{"target": "y", "steps": 30, "folds": 4, **options})
    with open_table(path) as table:
        design = read_design(table, settings)
    outside = [i for i, name in enumerate(design.names) if name in leave_out]
    keep = np.setdiff1d(np.arange(len(design.names)), outside)
    design = design._replace(
        columns=design.columns[keep], means=design.means[keep], spreads=design.spreads[keep],
        names=[design.names[i] for i in keep],
    )  # fmt: skip
    return report(design, settings, sparse_fit(design, settings, silent)), design, settings


@pytest.mark.parametrize("penalty", ["mcp", "scad"])
def test_the_planted_columns_come_back_with_their_coefficients(planted, penalty):
    result, _, _ = fit(planted, ("b", "k"), penalty=penalty)
    coefficients = {entry["name"]: entry["coefficient"] for entry in result["selected"]}
    assert set(coefficients) == {"x.0", "x.1"}
    assert coefficients["x.0"] == pytest.approx(20, abs=1.2)
    assert coefficients["x.1"] == pytest.approx(-15, abs=1.2)
    assert result["intercept"] == pytest.approx(5 - 7 * 20 + 7 * 15, abs=12)
    assert result["dropped"] == {"missing": 1, "constant": 1, "text": 0}
    assert result["held_out_loss"]["mean"] < result["baseline"]["held_out_loss"]["mean"]


@pytest.mark.parametrize(("target", "family"), [("b", "logistic"), ("k", "poisson")])
def test_classes_and_counts_are_fitted_by_their_likelihood(planted, target, family):
    outside = {"y", "b", "k"} - {target}
    result, design, _ = fit(
        planted, tuple(outside), target=target, family="auto" if target == "b" else family
    )
    assert result["family"] == family
    assert {entry["name"] for entry in result["selected"]} >= {"x.0", "x.1"}
    signs = {entry["name"]: entry["coefficient"] > 0 for entry in result["selected"]}
    assert signs["x.0"]
    assert not signs["x.1"]
    assert result["held_out_loss"]["mean"] < 0.9 * result["null_loss"] or result["null_loss"] < 0
    assert null_loss(design.y, family) == pytest.approx(result["null_loss"], rel=1e-5)


def test_the_accelerated_gradient_gives_the_same_path(planted):
    fast, design, settings = fit(planted, ("b", "k"))
    lambdas = lambda_grid(design, settings)[:15]
    slow = fit_path(
        design.columns,
        design.y,
        lambdas,
        family="gaussian",
        settings=Settings("y", solver="ag"),
        penalty="mcp",
    )
    ours = np.array([step["objective"] for step in fast["path"]])[:15]
    np.testing.assert_allclose(ours, slow.objective, rtol=1e-7)


def test_the_extended_bic_is_its_formula_and_folds_are_even(planted):
    _, design, settings = fit(planted, ("b", "k"))
    lambdas = lambda_grid(design, settings)
    path = fit_path(design.columns, design.y, lambdas, family="gaussian", settings=settings, penalty="mcp")
    bic = extended_bic(path, 150, 58, family="gaussian", gamma=1.0)
    from math import comb, log

    df = int((path.coefficients[9] != 0).sum())
    assert bic[9] == pytest.approx(150 * log(2 * path.loss[9]) + df * log(150) + 2 * log(comb(58, df)))
    folds = fold_of(design, settings)
    assert np.bincount(folds).max() - np.bincount(folds).min() <= 1
    means = [design.y[folds == f].mean() for f in range(4)]
    assert np.std(means) < 0.1 * design.y.std()


@pytest.fixture
def inside(capsys):
    def call(*words):
        status = cli.run(["sparse-fit", *map(str, words)])
        return status, *capsys.readouterr()

    return call


def keys(value) -> set[str]:
    if isinstance(value, list):
        return set().union(*map(keys, value)) if value else set()
    return set(value).union(*map(keys, value.values())) if isinstance(value, dict) else set()


def test_the_path_is_written_and_the_report_documented(inside, planted, tmp_path):
    out = tmp_path / "path.safetensors"
    status, text, notes = inside(
        planted, "--target", "y", "-o", out, "--plot", tmp_path / "p.png", "--steps", 20
    )
    assert status == 0, notes
    assert "1 columns left out: missing" in notes
    result = json.loads(text)
    page = PAGE.read_text().replace("\\", "")
    for key in keys(result):
        assert re.search(rf"\b{re.escape(key)}\b", page), key
    tensors = load_file(out)
    step = int(np.argmin(np.abs(tensors["lambda"] - result["lambda"])))
    with open_table(planted) as table:
        names = json.loads(bytes(tensors["bntools.file/columns.json"]).rstrip(b"\n"))
        fitted = tensors["intercepts"][step] + sum(
            b * table.column(name) for b, name in zip(tensors["coefficients"][step], names, strict=True) if b
        )
        error = ((table.column("y") - fitted) ** 2).mean() / table.column("y").var()
    assert error == pytest.approx(1 - result["explained"], abs=1e-5)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--target", "y", "--family", "poisson"], 3, "no count"),
        (["--target", "k", "--family", "logistic"], 3, "classes, logistic regression two"),
        (["--target", "x.21"], 3, "on every row"),
        (["--target", "y", "--shape", "0.5"], 2, "not above 1"),
        (["--target", "b", "--solver", "ag"], 2, "fits gaussian outcomes"),
        (["--target", "y", "--folds", "100"], 2, "--folds 100 for 150 rows"),
    ],
)
def test_what_cannot_be_done_is_said(inside, planted, words, code, message):
    status, _, text = inside(planted, *words)
    assert status == code
    assert message in text


def test_a_table_without_a_usable_column_is_refused(tmp_path):
    save_file({"x": np.ones((20, 3)), "y": np.arange(20.0)}, tmp_path / "t.safetensors")
    with pytest.raises(BnError, match="no column can be used"):
        fit(str(tmp_path / "t.safetensors"))
