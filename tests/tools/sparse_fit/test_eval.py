"""eval and info of a path: the loss is that of the formula, and what does not fit a path is named."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bntools import cli


@pytest.fixture
def call(capsys):
    def run(*words):
        status = cli.run([*map(str, words), "-q"])
        return status, *capsys.readouterr()

    return run


def write(path, x, y, names=None):
    names = names or [*(f"c{i}" for i in range(x.shape[1])), "y"]
    rows = [
        ",".join(names),
        *(",".join([*map(repr, map(float, row)), str(value)]) for row, value in zip(x, y, strict=True)),
    ]
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize("family", ["gaussian", "logistic", "poisson"])
def test_the_loss_is_that_of_the_prediction(call, tmp_path, family):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((240, 12))
    eta = x[:, 2] - 0.5 * x[:, 7]
    y = {
        "gaussian": eta + 0.3 * rng.standard_normal(240),
        "logistic": np.where(rng.random(240) < 1 / (1 + np.exp(-3 * eta)), "yes", "no"),
        "poisson": rng.poisson(np.exp(eta)),
    }[family]
    fitted, held = write(tmp_path / "a.csv", x[:160], y[:160]), write(tmp_path / "b.csv", x[160:], y[160:])
    path = tmp_path / "path.st"
    assert call("sparse-fit", fitted, "--target", "y", "--family", family, "--folds", 3, "-o", path)[0] == 0
    status, out, err = call("eval", path, "--data", held, "--json")
    assert status == 0, err
    report = json.loads(out)
    facts = json.loads(call("info", path, "--json")[1])["facts"]
    assert set(facts["selected"]) >= {"c2"}
    from bntools.core.artifact.reader import open_path

    with open_path(path) as source:
        b = source.tensor("coefficients").numpy()[report["step"]]
        predictor = source.tensor("intercepts").numpy()[report["step"]] + x[160:] @ b
    held_y = (y[160:] == "yes").astype(float) if family == "logistic" else y[160:].astype(float)
    loss = {
        "gaussian": lambda: 0.5 * (held_y - predictor) ** 2,
        "logistic": lambda: (
            -np.log(
                np.where(held_y > 0, 1, 0) * (1 - 2 / (1 + np.exp(predictor))) + 1 / (1 + np.exp(predictor))
            )
        ),
        "poisson": lambda: np.exp(predictor) - held_y * predictor,
    }[family]()
    assert report["loss"]["mean"] == pytest.approx(loss.mean(), rel=1e-3)
    assert report["columns"] == np.count_nonzero(b)
    assert report["best"]["loss"] <= report["loss"]["mean"]
    if family != "poisson":
        assert report["explained"] > 0.2
    if family == "logistic":
        assert report["accuracy"] > report["largest_class"]


def test_what_does_not_fit_a_path_is_named(call, tmp_path):
    x = np.random.default_rng(2).standard_normal((60, 4))
    table = write(tmp_path / "a.csv", x, x[:, 1])
    path = tmp_path / "path.st"
    assert call("sparse-fit", table, "--target", "y", "--folds", 3, "-o", path)[0] == 0
    other = write(tmp_path / "b.csv", x, x[:, 1], ["c0", "other", "c2", "c3", "y"])
    assert call("eval", path)[0] == 2
    status, _, err = call("eval", path, "--data", other)
    assert (status, "c1" in err) == (2, True)
    assert call("eval", path, "--data", table, "--set", "step=900")[0] == 2
    assert call("eval", path, "--data", table, "--set", "steps=1")[0] == 2


def test_info_names_the_shape_of_a_table(call, tmp_path):
    x = np.random.default_rng(2).standard_normal((60, 4))
    table = write(tmp_path / "a.csv", x, x[:, 1])
    screened = tmp_path / "t.st"
    words = ("--target", "y", "--top", 3, "--permutations", 1000, "-o", screened)
    assert call("screen", table, *words)[0] == 0
    facts = json.loads(call("info", screened, "--json")[1])["facts"]
    assert (facts["rows"], facts["columns"], facts["beside"]) == (60, 4, ["y"])
    assert facts["first"][0] == "c1"
