"""Training finds a planted dictionary, goes on after a kill to the same bytes, and sets outliers aside."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bntools.core.datasets.activations import open_activations, write_activations
from bntools.core.errors import BnError
from bntools.core.methods.sparse_dictionary import Inference
from bntools.core.progress import no_progress
from bntools.tools.sparse_code import run
from bntools.tools.sparse_code.batches import Batches, Cursor, measure
from bntools.tools.sparse_code.settings import Settings

M, D_IN, K = 64, 32, 3
SETTINGS = Settings(
    k=K, latents=M, batch=128, rate=5e-3, tokens=128 * 700, dead_after=1500, holdout=1000, candidates=16
)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Rows of 3 of 64 directions each, and the directions."""
    rng = np.random.default_rng(0)
    D = rng.standard_normal((M, D_IN)).astype(np.float32)
    D /= np.linalg.norm(D, axis=1, keepdims=True)
    codes = np.zeros((9000, M), np.float32)
    for row in codes:
        row[rng.choice(M, K, replace=False)] = rng.uniform(0.5, 1.5, K)
    path = tmp_path_factory.mktemp("planted") / "x.safetensors"
    write_activations(str(path), codes @ D + np.float32(0.3), facts={"layer": 1, "site": "resid"})
    return str(path), D


def fit(path: str, *settings: Settings, work: str | None = None, every: float = 60.0):
    with open_activations(path) as rows:
        return run.fit(rows, list(settings), threads=1, work=work, progress=no_progress, save_every=every)


@pytest.mark.parametrize(
    ("method", "cosine", "fvu"),
    [("topk", 0.95, 0.15), ("batchtopk", 0.95, 0.15), ("matryoshka", 0.85, 0.3), ("gated", 0.9, 0.2),
     ("relu", 0.9, 0.4), ("jumprelu", 0.85, 0.3)],
)  # fmt: skip
def test_a_planted_dictionary_is_found(planted, method, cosine, fvu):
    path, D = planted
    (result,) = fit(path, replace(SETTINGS, method=method))
    report = result.report
    assert np.abs(result.dictionary.D @ D.T).max(0).mean() > cosine
    assert report["encoder"]["fvu"]["value"] < fvu
    assert report["encoder"]["l0"]["mean"] == pytest.approx(K, rel=0.1)
    assert report["pursuit"]["fvu"]["value"] < report["encoder"]["fvu"]["value"]
    assert report["encoder"]["fvu"]["value"] < report["baseline"]["pca"]["fvu"]
    assert report["train"]["l0"] == pytest.approx(K, rel=0.15)


def test_threshold_is_solved_to_k_latents_a_row(planted):
    path, _ = planted
    (result,) = fit(path, replace(SETTINGS, method="batchtopk", tokens=128 * 100))
    with open_activations(path) as rows:
        codes = result.dictionary.encode(rows.read(0, 8000), Inference(0, K))
    assert len(codes.latents) / 8000 == pytest.approx(K, rel=0.01)


def test_several_k_in_one_pass_are_each_what_they_are_alone(planted):
    path, _ = planted
    short = replace(SETTINGS, tokens=128 * 40)
    together = fit(path, short, replace(short, k=5))
    for result, k in zip(together, (K, 5), strict=True):
        (alone,) = fit(path, replace(short, k=k))
        assert np.array_equal(result.dictionary.D, alone.dictionary.D)


class Killed(Exception):
    pass


@pytest.mark.parametrize("method", ["topk", "gated", "jumprelu"])
def test_a_run_that_was_killed_goes_on_to_the_same_bytes(planted, tmp_path, monkeypatch, method):
    path, _ = planted
    settings = replace(SETTINGS, method=method, tokens=128 * 90)
    (whole,) = fit(path, settings)
    save, saves = run.Keeper.save, []

    def killing(self, trainers, done, cursor):
        save(self, trainers, done, cursor)
        saves.append(done)
        if len(saves) == 31:
            raise Killed

    monkeypatch.setattr(run.Keeper, "save", killing)
    with pytest.raises(Killed):
        fit(path, settings, work=f"{tmp_path}/w", every=1e-9)
    assert saves[-1] == 31
    (resumed,) = fit(path, settings, work=f"{tmp_path}/w", every=1e-9)
    assert saves[31] == 32
    assert np.array_equal(whole.dictionary.D, resumed.dictionary.D)
    assert np.array_equal(whole.dictionary.E, resumed.dictionary.E)
    assert whole.report["train"]["curve"] == resumed.report["train"]["curve"]
    with pytest.raises(BnError, match="seed"):
        fit(path, replace(settings, seed=1), work=f"{tmp_path}/w")


def test_outliers_are_set_aside_and_counted(planted, tmp_path):
    path, _ = planted
    with open_activations(path) as rows:
        x = rows.load()[0]
    x[::100] *= 200
    write_activations(f"{tmp_path}/o", x)
    with open_activations(f"{tmp_path}/o") as rows:
        norm = measure(rows, rows.rows, outliers=10, center="mean", bad="raise")
        loose = measure(rows, rows.rows, outliers=0, center="mean", bad="raise")
        batches = Batches(rows, norm, rows.rows, 128, 0)
        seen = [X for (_, X), _ in zip(batches(), range(60), strict=False)]
    assert norm.outliers == 90
    assert loose.outliers == 0
    assert loose.scale > 5 * norm.scale
    assert max(np.abs(X).max() for X in seen) < 20
    ordinary = np.delete(x, np.s_[::100], 0)
    assert np.allclose(norm.mean, ordinary.mean(0), atol=1e-4)
    assert norm.scale == pytest.approx(
        np.sqrt(np.square(ordinary - ordinary.mean(0)).sum(1).mean() / D_IN), rel=1e-4
    )


@pytest.mark.parametrize("center", ["mean", "median", "none"])
def test_centres_are_what_they_are_called(planted, center):
    path, _ = planted
    with open_activations(path) as rows:
        norm = measure(rows, rows.rows, outliers=10, center=center, bad="raise")
        x = rows.load()[0].astype(float)
    wanted = {"mean": x.mean(0), "none": 0 * x[0], "median": x.mean(0)}[center]
    assert np.allclose(norm.mean, wanted, atol=0.03 if center == "median" else 1e-4)
    assert norm.scale == pytest.approx(np.sqrt(np.square(x - norm.mean).mean()), rel=1e-3)


def test_a_pass_shows_every_row_once_and_another_pass_another_order(tmp_path):
    x = np.arange(9001 * 4, dtype=np.float32).reshape(-1, 4)
    write_activations(f"{tmp_path}/x", x)
    with open_activations(f"{tmp_path}/x") as rows:
        norm = measure(rows, rows.rows, outliers=0, center="mean", bad="raise")
        batches = Batches(rows, norm, rows.rows, 100, 0)
        batches.blocks = 1  # the buffer holds one block of the three
        shown, cursors = [], []
        for cursor, X in batches():
            shown.append(np.rint(X[:, 0] * norm.scale + norm.mean[0]).astype(int))
            cursors.append(cursor)
            if cursor.epoch == 1 and cursor.group == 1:
                break
        again = next(batches(cursors[57]))[1]
    assert np.array_equal(np.rint(again[:, 0] * norm.scale + norm.mean[0]).astype(int), shown[58])
    first = np.concatenate(
        [s for s, c in zip(shown, [Cursor(), *cursors], strict=False) if c.epoch == 0 and c.group < 3]
    )
    assert len(np.unique(first)) == len(first) > 8700
    second = np.concatenate([s for s, c in zip(shown, [Cursor(), *cursors], strict=False) if c.epoch == 1])
    assert not np.array_equal(first[: len(second)], second)


def test_bad_rows_few_rows_and_equal_rows_are_refused(tmp_path):
    x = np.random.default_rng(0).standard_normal((500, 8)).astype(np.float32)
    small = Settings(k=2, latents=16, batch=32, tokens=320, candidates=8, holdout=50)
    cases = [(np.where(np.arange(500)[:, None] == 7, np.nan, x), "1 rows of 450 hold NaN .* row 7"),
             (np.ones_like(x), "all rows are equal"), (x[:52], "fewer than 2 k")]  # fmt: skip
    for array, message in cases:
        write_activations(f"{tmp_path}/x", array, force=True)
        with pytest.raises(BnError, match=message) as error:
            fit(f"{tmp_path}/x", small)
        assert error.value.code == 3
    write_activations(f"{tmp_path}/x", cases[0][0], force=True)
    (result,) = fit(f"{tmp_path}/x", replace(small, bad="drop"))
    assert result.report["rows"]["bad"] == 1
    with pytest.raises(BnError, match="does not fit 16 latents") as error:
        fit(f"{tmp_path}/x", replace(small, k=16, bad="drop"))
    assert error.value.code == 2
