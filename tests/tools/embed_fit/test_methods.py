"""Every method: what is stored is what was trained, within its budget, and the ties between methods hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bntools.core.methods.embedding import scores
from bntools.core.methods.embedding.decode import outputs
from bntools.core.methods.embedding.fields import TableField
from bntools.kernels.embedding.head import Head
from bntools.tools.embed_fit import lookups
from bntools.tools.embed_fit.methods import ihas, plain, pruned
from bntools.tools.embed_fit.methods.fitting import Bench, fit_plain
from bntools.tools.embed_fit.problem import synthetic_problem
from bntools.tools.embed_fit.settings import Settings
from bntools.tools.embed_fit.sweep import method_of
from bntools.tools.embed_fit.training import LAMBDAS, Rows, Training, predict, train, tune

SETTINGS = Settings(lambda_=30.0, dim=8, epochs=4, batch=512)


def planted(n=3000, seed=0, sizes=(120, 60, 4)):
    """Rows whose outcome is a sum of effects of the values, Zipf-like frequencies."""
    rng = np.random.default_rng(seed)
    ids = np.stack([np.minimum(rng.zipf(1.4, n) - 1, size - 1) for size in sizes], 1).astype(np.int32)
    effect = [rng.standard_normal(size) for size in sizes]
    logit = sum(e[ids[:, t]] for t, e in enumerate(effect))
    y = (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    fields = [
        TableField(f"f{t}", [f"v{i}" for i in range(size)], np.bincount(ids[: n // 2, t], minlength=size) + 1)
        for t, size in enumerate(sizes)
    ]
    parts = np.split(np.arange(n), [n // 2, 3 * n // 4])
    return synthetic_problem(fields, [Rows(ids[p].copy(), y[p]) for p in parts])


@pytest.fixture(scope="module")
def bench():
    return Bench(planted(), SETTINGS)


def columns(problem, rows):
    return {
        f.name: np.array([f.values[i] for i in rows.ids[:, t]], object) for t, f in enumerate(problem.fields)
    }


@pytest.mark.parametrize(
    "method",
    ["full", "hash", "unified", "robe", "qr", "tt", "dhe", "mde", "prune", "pep", "dnis", "spectral"],
)
def test_a_written_table_predicts_what_the_trained_one_does_within_its_budget(bench, method):
    fitted = method_of(method)(bench, 0.5)
    again = outputs(fitted.stored, columns(bench.problem, bench.problem.test))
    np.testing.assert_allclose(again, fitted.output, atol=2e-5)
    size = fitted.stored.nbytes()
    assert size["embedding"] + size["index"] <= 0.5 * 4 * plain.full_size(bench.problem, bench.settings)
    assert scores.auc(bench.problem.test.y, fitted.output)["value"] > 0.55


def test_the_searched_groups_of_ihas_are_counted_with_their_search_table(bench):
    fitted = ihas.fit_ihas(bench, 0.5)
    assert fitted.numbers > plain.full_size(bench.problem, bench.settings) * 1.0
    assert fitted.facts["tables_only"] <= 0.5 * plain.full_size(bench.problem, bench.settings)
    shared = ihas.fit_ihas(Bench(bench.problem, replace(SETTINGS, share_table=True)), 0.5)
    assert shared.numbers < fitted.numbers
    assert np.isfinite(shared.output).all()


def test_unified_with_a_bijection_for_a_hash_is_the_full_table():
    """The same starts, the same numbers: the trained outputs are bit equal."""
    problem, d = planted(), 8
    form = plain.row_table(problem, d, 1)
    starts, at = [], 0
    for seen, _ in problem.sizes():
        starts.append((at + np.arange(seen)[:, None]) * d)
        at += seen + 1
    chunked = lookups.Chunked(starts, len(form.lookup.flat), d, stored=0, seed=1)
    chunked.flat[:] = form.lookup.flat
    out = []
    for lookup in (form.lookup, chunked):
        head = Head("dcn", lookup.widths, 0)
        train(lookup, head, (problem.train, problem.valid), 30.0, Training(epochs=2))
        out.append(predict(lookup, head, problem.test.ids))
    assert np.array_equal(*out)


def test_unified_depends_on_the_text_of_values_and_not_on_their_numbers():
    problem = planted()
    order = np.random.default_rng(5).permutation(120)
    renamed = TableField("f0", [problem.fields[0].values[i] for i in order], problem.fields[0].counts[order])
    back = np.argsort(order).astype(np.int32)

    def moved(rows):
        ids = rows.ids.copy()
        ids[:, 0] = back[ids[:, 0]]
        return rows._replace(ids=ids)

    other = synthetic_problem(
        [renamed, *problem.fields[1:]], [moved(r) for r in (problem.train, problem.valid, problem.test)]
    )
    first, second = (fit_plain(Bench(p, SETTINGS), "unified", 0.25).output for p in (problem, other))
    assert np.array_equal(first, second)


def test_factors_of_one_make_dnis_the_full_table(bench):
    base = plain.row_table(bench.problem, 8, 0).lookup
    scaled = pruned.Scaled(base.starts, len(base.flat), 8, stored=base.stored, seed=0)
    scaled.flat[:] = base.flat
    scaled.blocks = pruned.frequency_blocks(bench.problem, SETTINGS.blocks)
    scaled.alpha = torch.ones(5, 8)
    ids = bench.problem.test.ids
    assert torch.equal(scaled.forward(ids), base.forward(ids))
    g = torch.randn(len(ids), 24, generator=torch.Generator().manual_seed(0))
    for table in (scaled, base):
        table.gradient[:] = 0
        table.backward(g)
    assert np.array_equal(scaled.gradient, base.gradient)


def test_the_gradient_of_dnis_factors_is_that_of_autograd(bench):
    base = plain.row_table(bench.problem, 8, 0).lookup
    scaled = pruned.Scaled(base.starts, len(base.flat), 8, stored=base.stored, seed=0)
    scaled.blocks = pruned.frequency_blocks(bench.problem, SETTINGS.blocks)
    scaled.alpha = torch.rand(5, 8, generator=torch.Generator().manual_seed(1))
    ids = bench.problem.test.ids[:50]
    out = scaled.forward(ids)
    g = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
    leaf, raw = scaled.alpha.clone().requires_grad_(), base.__class__.forward(scaled, ids)
    blocks = torch.stack([torch.from_numpy(b[ids[:, t]]) for t, b in enumerate(scaled.blocks)], 1)
    (torch.cat([raw[:, 8 * t : 8 * t + 8] * leaf[blocks[:, t]] for t in range(3)], 1) * g).sum().backward()
    torch.testing.assert_close(scaled.slope_of_alpha(g), leaf.grad, atol=1e-5, rtol=1e-4)


def test_frequent_values_are_in_the_first_block(bench):
    blocks = pruned.frequency_blocks(bench.problem, (0.5, 0.5))
    first = np.concatenate(
        [f.counts[b[: len(f.counts)] == 0] for f, b in zip(bench.problem.fields, blocks, strict=True)]
    )
    second = np.concatenate(
        [f.counts[b[: len(f.counts)] == 1] for f, b in zip(bench.problem.fields, blocks, strict=True)]
    )
    assert first.min() >= second.max()
    assert abs(len(first) - len(second)) <= 1


def test_pep_learns_its_threshold_by_the_gradient(bench):
    base = plain.row_table(bench.problem, 8, 0).lookup
    table = pruned.Thresholded(base.starts, len(base.flat), 8, stored=0, seed=0)
    table.flat[:], table.s = base.flat * 20, -1.0
    ids = bench.problem.test.ids[:40]
    s = torch.tensor(table.s, requires_grad=True)
    raw = lookups.Chunked.forward(table, ids)
    g = torch.randn(40, 24, generator=torch.Generator().manual_seed(3))
    ((raw.sign() * (raw.abs() - torch.sigmoid(s)).clamp_min(0)) * g).sum().backward()
    torch.testing.assert_close(
        table.forward(ids), raw.sign() * (raw.abs() - torch.sigmoid(s.detach())).clamp_min(0)
    )
    table.backward(g)
    assert table.slope_of_s == pytest.approx(float(s.grad), rel=1e-4)


def test_a_tight_prior_pulls_rare_rows_to_nothing():
    problem = planted()
    norms = []
    for weight in (1.0, 1000.0):
        lookup = plain.row_table(problem, 8, 0).lookup
        train(
            lookup,
            Head("dcn", lookup.widths, 0),
            (problem.train, problem.valid),
            weight,
            Training(epochs=30, patience=30, batch=256),
        )
        norms.append(np.linalg.norm(plain.tables(problem, lookup, 8)[0][60:]))
    assert norms[1] < norms[0] / 2


def test_a_lazy_table_learns_as_well_as_a_dense_one(monkeypatch):
    problem, losses = planted(), []
    for size in (1 << 40, 0):
        monkeypatch.setattr(lookups, "LAZY", size)
        lookup = plain.row_table(problem, 8, 0).lookup
        assert lookup.lazy == (size == 0)
        losses.append(
            train(
                lookup,
                Head("dcn", lookup.widths, 0),
                (problem.train, problem.valid),
                30.0,
                Training(epochs=8),
            ).loss
        )
    assert losses[1] == pytest.approx(losses[0], abs=0.02)


def test_tuning_walks_downhill_and_tries_no_more():
    class Fit:
        def __init__(self, loss):
            self.loss = loss

    tried = []

    def fit(weight):
        tried.append(weight)
        return Fit(abs(np.log(weight / 90)))

    best, record = tune(fit)
    assert best.loss == pytest.approx(abs(np.log(100 / 90)))
    assert sorted(tried) == sorted(LAMBDAS)
    assert [one["lambda"] for one in record] == sorted(tried)


@pytest.mark.parametrize("model", ["fm", "mf"])
def test_other_heads_train_and_are_stored(model):
    problem = planted(sizes=(80, 60))
    bench = Bench(problem, replace(SETTINGS, model=model, epochs=20))
    for method in ("full", "unified", "spectral"):
        fitted = method_of(method)(bench, 0.5)
        again = outputs(fitted.stored, columns(problem, problem.test))
        np.testing.assert_allclose(again, fitted.output, atol=2e-5)


def test_numbers_are_predicted_too():
    problem = planted()
    rows = [r._replace(y=r.y * 3 + 1) for r in (problem.train, problem.valid, problem.test)]
    bench = Bench(synthetic_problem(problem.fields, rows, "regression"), replace(SETTINGS, epochs=12))
    fitted = fit_plain(bench, "full", 1.0)
    found = scores.metrics(rows[2].y, fitted.output, "regression")
    assert found["rmse"] < found["rmse_of_mean"]


def test_spectral_with_codes_takes_a_quarter_of_the_bytes_at_nearly_the_same_outputs(bench):
    plain_one = method_of("spectral")(bench, 0.5)
    coded = method_of("spectral")(Bench(bench.problem, replace(SETTINGS, bits=8), full=bench.full), 0.5)
    sizes = [sum(f.stored.nbytes()[k] for k in ("embedding", "index")) for f in (plain_one, coded)]
    assert sizes[1] < 0.3 * sizes[0] + 600  # small fields' axes are float16, not codes
    y = bench.problem.test.y
    assert abs(scores.auc_difference(y, coded.output, plain_one.output)["mean"]) < 0.01
