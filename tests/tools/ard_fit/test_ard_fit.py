"""The count of axes: known answers, invariances, and what is said where it cannot be trusted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bntools.core.errors import BnError
from bntools.core.methods.vae.network import Architecture, Autoencoder, hidden_units
from bntools.core.methods.vae.rows import RowSource
from bntools.core.methods.vae.scores import (
    LatentCodes,
    Prior,
    divergence,
    encode_all,
    sensitivity,
    signal_eigenvalues,
)
from bntools.core.progress import no_progress
from bntools.tools.ard_fit import Settings, ard_fit, linear
from bntools.tools.ard_fit.data import Data
from bntools.tools.ard_fit.decide import Curve, cut
from bntools.tools.ard_fit.paper import Plateau, hyper_prior

QUICK = Settings(restarts=1, baseline=False)


def rows_of(x, label="x"):
    x = np.ascontiguousarray(x)
    source = RowSource(lambda a, b: x[a:b], len(x), x.shape[1:], label)
    source.bytes = x.dtype == np.uint8
    return source


def planted(r, noise, seed, n=2000, d=40):
    """A linear Gaussian model of r axes."""
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=(n, r)) @ rng.normal(size=(r, d)) / np.sqrt(r)
    return (signal + noise * rng.normal(size=(n, d))).astype(np.float32)


def count(x, **options):
    return ard_fit(rows_of(x), Settings(**{"arch": "linear", "baseline": False, **options})).report


@pytest.mark.parametrize("r", [1, 3, 5, 10])
@pytest.mark.parametrize("noise", [0.05, 0.3, 1.0])
def test_a_linear_gaussian_model_has_its_number_of_axes(r, noise):
    report = count(planted(r, noise, 11), max_dim=32)
    assert report["n_relevant"]["value"] == r
    assert report["linear"]["minka"] == report["linear"]["bpca"] == r
    assert report["sigma2"] == pytest.approx(
        noise**2, rel=0.05
    )  # 2000 x 40 numbers: a standard error of 0.5 %
    assert not report["edge"]


def test_a_start_smaller_than_the_answer_is_told():
    report = count(planted(10, 0.3, 0), max_dim=8)
    assert report["n_relevant"]["value"] == 8
    assert report["edge"]
    assert [w["name"] for w in report["warnings"]] == ["edge"]


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_scale_order_and_constant_columns_change_nothing(scale):
    x = planted(3, 0.3, 1, n=600, d=12)
    rng = np.random.default_rng(0)
    other = np.concatenate([x[:, rng.permutation(12)], np.full((600, 2), 7.0, np.float32)], 1) * np.float32(
        scale
    )
    for options in ({"arch": "linear"}, {"arch": "mlp", "epochs": 8, "max_dim": 6, "restarts": 1}):
        plain, moved = count(x, **options), count(other, **options)
        assert moved["n_relevant"]["value"] == plain["n_relevant"]["value"]
        assert moved["input"]["constant"] == 2
        ratio = moved["error"]["pruned"]["mean"] / plain["error"]["pruned"]["mean"]
        assert ratio == pytest.approx(scale**2, rel=0.02)


@pytest.mark.parametrize("seed", range(3))
def test_noise_needs_no_axis(seed):
    noise = np.random.default_rng(seed).normal(size=(1000, 20)).astype(np.float32)
    assert count(noise)["n_relevant"]["value"] == 0


@pytest.mark.slow
def test_networks_find_a_curved_sheet_and_no_axis_in_noise():
    rng = np.random.default_rng(5)
    hidden = np.tanh(1.5 * rng.normal(size=(3000, 2)) @ rng.normal(size=(2, 32)))
    x = (hidden @ rng.normal(size=(32, 16)) / 6 + 0.05 * rng.normal(size=(3000, 16))).astype(np.float32)
    report = ard_fit(rows_of(x), Settings(max_dim=8, restarts=1, baseline=False)).report
    assert report["arch"] == "mlp"
    assert report["n_relevant"]["value"] == 2
    assert report["linear"]["count"] > 2
    noise = ard_fit(rows_of(rng.normal(size=(1000, 16)).astype(np.float32)),
                    Settings(arch="mlp", max_dim=4, epochs=20, restarts=1, baseline=False)).report  # fmt: skip
    assert noise["n_relevant"]["value"] == 0


def test_the_same_seed_gives_the_same_report_and_another_a_different_one():
    x = planted(2, 0.3, 2, n=300, d=8)
    first, again, other = (
        ard_fit(
            rows_of(x), Settings(arch="mlp", epochs=3, restarts=1, max_dim=4, baseline=False, seed=seed)
        ).report
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first["axes"] != other["axes"]


def test_a_plain_vae_stands_beside_and_bad_rows_are_left_out_on_demand():
    x = planted(2, 0.3, 3, n=300, d=8)
    x[7, 1] = np.nan
    with pytest.raises(BnError, match="row 7"):
        ard_fit(rows_of(x), QUICK)
    report = ard_fit(rows_of(x), Settings(arch="mlp", epochs=3, restarts=2, max_dim=4, bad="drop")).report
    assert report["input"]["bad"] == 1
    assert len(report["restarts"]["counts"]) == 2
    assert {"count", "nats", "error"} <= set(report["vae"])


def test_rows_read_as_needed_are_the_rows_in_memory():
    x = planted(2, 0.3, 4, n=700, d=8)
    held, streamed = (
        ard_fit(rows_of(x), Settings(arch="linear", baseline=False, memory=memory)).report
        for memory in (1 << 30, 0)
    )
    assert held["input"]["in_memory"]
    assert not streamed["input"]["in_memory"]
    assert held["n_relevant"] == streamed["n_relevant"]
    assert held["error"] == streamed["error"]
    data = Data(rows_of(x), Settings(memory=0), True, no_progress)
    seen = torch.cat(list(data.batches(10_000, 0, 0)))
    assert len(seen) == data.rows == 560
    network = ard_fit(
        rows_of(x), Settings(arch="mlp", epochs=2, restarts=1, max_dim=3, memory=0, baseline=False)
    )
    assert network.report["steps"] > 0


@pytest.mark.parametrize(
    ("x", "options", "code", "words"),
    [
        (np.zeros((10, 4), np.float32), {}, 3, "too few"),
        (np.ones((50, 4), np.float32), {}, 3, "the same"),
        (planted(1, 1, 0, 50, 4), {"max_dim": 9}, 2, "--max-dim 9"),
        (planted(1, 1, 0, 50, 4), {"arch": "conv"}, 3, "no images"),
        (planted(1, 1, 0, 50, 4), {"beta": 0.5}, 2, "--beta"),
        (planted(1, 1, 0, 50, 4), {"method": "bpca", "arch": "mlp"}, 2, "linear"),
        (planted(1, 1, 0, 50, 4), {"paper": True, "variance": 1.0}, 2, "fixed"),
    ],
)
def test_what_cannot_be_fitted_is_refused(x, options, code, words):
    with pytest.raises(BnError, match=words) as caught:
        ard_fit(rows_of(x), Settings(restarts=1, baseline=False, **options))
    assert caught.value.code == code


def test_fewer_rows_than_columns_and_a_large_batch_are_told():
    report = ard_fit(
        rows_of(planted(2, 0.1, 5, n=30, d=60)), Settings(restarts=1, epochs=2, baseline=False)
    ).report
    assert {"few-rows", "batch"} <= {w["name"] for w in report["warnings"]}


def test_bytes_are_images_from_0_to_1():
    images = np.random.default_rng(0).integers(0, 255, (60, 12, 12)).astype(np.uint8)
    fit = ard_fit(rows_of(images), Settings(arch="conv", max_dim=3, epochs=1, restarts=1, baseline=False))
    assert "bytes" in {w["name"] for w in fit.report["warnings"]}
    assert fit.model.sample(5, 0).shape == (5, 12, 12)
    assert float(fit.model.mean.max()) < 1


def test_the_paper_runs_on_images_and_on_rows():
    images = np.random.default_rng(0).integers(0, 255, (120, 12, 12)).astype(np.uint8)
    options = {"paper": True, "max_dim": 3, "epochs": 2, "restarts": 1, "filters": 2, "baseline": False}
    fit = ard_fit(rows_of(images), Settings(**options))
    assert fit.model.net.arch.kind == "paper-conv"
    assert fit.model.net.arch.shape == (16, 16)
    assert fit.report["n_relevant"]["value"] == fit.report["by_criterion"]["paper"]
    assert fit.model.sample(4, 0).shape == (4, 12, 12)
    flat = ard_fit(
        rows_of(planted(1, 0.3, 0, 200, 6)), Settings(**{**options, "defects": ("schedule", "generation")})
    )
    assert flat.model.net.arch.kind == "mlp"
    assert flat.report["sigma2"] == pytest.approx(0.25)  # beta / 2


def test_a_gamma_prior_has_the_posterior_of_its_samples():
    z = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 3.0]) + 1
    found = hyper_prior(z, 2.0, 0.5)
    assert found.a == 502
    assert float(found.b[1]) == pytest.approx(0.5 + 0.5 * float((z[:, 1] ** 2).sum()))


def test_the_plateau_halves_the_rate_after_ten_epochs_without_gain():
    plateau = Plateau(1.0)
    for loss in [1.0, *[2.0] * 10]:
        plateau.see(loss)
    assert plateau.rate == 1.0
    plateau.see(2.0)
    assert plateau.rate == 0.5


def test_the_divergence_is_that_of_the_distributions():
    g = torch.Generator().manual_seed(1)
    codes = LatentCodes(torch.randn(5, 3, generator=g), torch.randn(5, 3, generator=g))
    prior = Prior(torch.randn(3, generator=g), torch.rand(3, generator=g) + 0.1)
    normal = torch.distributions.Normal
    wanted = torch.distributions.kl_divergence(
        normal(codes.mean, (0.5 * codes.log_variance).exp()), normal(prior.mean, prior.variance.sqrt())
    )
    torch.testing.assert_close(divergence(codes, prior), wanted)


def test_units_of_the_code_change_no_reconstruction_and_no_relevance():
    torch.manual_seed(0)
    net = Autoencoder(Architecture("mlp", (6,), 3, hidden_units("mlp", (6,))))
    x = torch.randn(40, 6)

    def state():
        codes = encode_all(net, x)
        felt = sensitivity(net, codes.mean)
        return net.decode(codes.mean), signal_eigenvalues(felt.gram, torch.cov(codes.mean.T))

    before = state()
    net.regauge(torch.tensor([0.1, -0.2, 0.0]), torch.tensor([0.25, 9.0, 1.0]))
    after = state()
    torch.testing.assert_close(after[0], before[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(after[1], before[1], atol=1e-6, rtol=1e-3)


def test_two_axes_that_carry_one_factor_have_rank_one():
    net = Autoencoder(Architecture("linear", (5,), 2, ()))
    with torch.no_grad():
        net.first.weight.copy_(torch.ones(5, 2))
    mean = torch.randn(200, 1).expand(200, 2)
    values = signal_eigenvalues(sensitivity(net, mean[:10]).gram, torch.cov(mean.T))
    assert float(values[1]) < 1e-4 * float(values[0])
    assert float(values[0]) == pytest.approx(4 * 5 * float(mean[:, 0].var()), rel=1e-4)


def test_the_cut_is_the_first_prefix_within_the_tolerance_of_the_axes_that_pay():
    errors = torch.tensor([100.0, 50, 10.05, 10.0, 9.0])[:, None].expand(5, 50)
    nats = torch.tensor([50.0, 30, 20.2, 20, 21])[:, None].expand(5, 50)  # the last axis raises the bound
    assert cut(Curve(errors, nats), 0.01)[:2] == (2, 3)
    assert cut(Curve(errors, nats), 0.001)[:2] == (3, 3)
    assert cut(Curve(errors, nats + torch.arange(5)[:, None] * 100), 0.01)[:2] == (0, 0)


def test_minka_s_estimate_is_scikit_learn_s():
    pca = pytest.importorskip("sklearn.decomposition").PCA
    for seed in range(3):
        x = planted(4, 0.5, seed, n=300, d=15).astype(np.float64)
        values = np.linalg.eigvalsh(np.cov(x.T))[::-1]
        assert linear.minka(values, 300) == pca(n_components="mle").fit(x).n_components_


def slow_bayesian(x, most, passes=3000):
    """Bayesian PCA by Bishop's EM on whole matrices."""
    n, d = x.shape
    x = x - x.mean(0)
    values, vectors = np.linalg.eigh(x.T @ x / n)
    noise = values[: d - most].mean()
    weights = vectors[:, ::-1][:, :most] * np.sqrt(np.maximum(values[::-1][:most] - noise, 0.1 * noise))
    for _ in range(passes):
        inverse = np.linalg.inv(weights.T @ weights + noise * np.eye(most))
        z = x @ weights @ inverse
        second = n * noise * inverse + z.T @ z
        alpha = d / np.maximum((weights**2).sum(0), 1e-300)
        weights = x.T @ z @ np.linalg.inv(second + noise * np.diag(alpha))
        noise = ((x**2).sum() - 2 * np.sum((x @ weights) * z) + np.trace(second @ weights.T @ weights)) / (
            n * d
        )
    return np.sort((weights**2).sum(0))[::-1], noise


def test_bayesian_pca_by_axes_is_that_of_whole_matrices():
    x = planted(2, 0.4, 6, n=400, d=8).astype(np.float64)
    values = np.linalg.eigvalsh(np.cov(x.T, bias=True))[::-1]
    found = linear.bayesian(values, 8, 400, 4)
    weights, noise = slow_bayesian(x, 4)
    np.testing.assert_allclose(found.weights[:2], weights[:2], rtol=1e-4)
    assert found.noise == pytest.approx(noise, rel=1e-4)
    assert found.count == 2
