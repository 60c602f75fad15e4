"""Autoencoders as artifacts, rows of any shape, mixtures of codes, measures of disentanglement."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bntools.core.artifact.reader import open_path
from bntools.core.artifact.writer import Writer
from bntools.core.errors import BnError
from bntools.core.methods.vae import artifact, disentangle, mixture
from bntools.core.methods.vae.artifact import LatentModel
from bntools.core.methods.vae.network import Architecture, Autoencoder, hidden_units
from bntools.core.methods.vae.rows import open_rows
from bntools.core.methods.vae.scores import Prior, encode_all, jacobians, pruned_errors
from bntools.tools.fetch import sprites


def model(kind="mlp", shape=(6,), dim=3):
    torch.manual_seed(0)
    net = Autoencoder(Architecture(kind, shape, dim, hidden_units(kind, shape))).eval()
    columns = torch.tensor([5, 0, 3, 1, 2, 7]) if kind == "mlp" else None
    full = (8,) if kind == "mlp" else shape
    mean = torch.arange(int(np.prod(full)), dtype=torch.float32)
    prior = Prior(torch.zeros(dim), torch.ones(dim))
    density = mixture.fit(torch.randn(200, 2), 3, 0)
    return LatentModel(
        net, full, mean, 2.0, columns, prior, torch.tensor([2, 0, 1]), 2, 0.1, density, {"method": "vae"}
    )


@pytest.mark.parametrize(
    ("kind", "shape"), [("mlp", (6,)), ("linear", (6,)), ("conv", (1, 16, 16)), ("conv", (7, 9))]
)
def test_a_model_comes_back_as_it_was_written(tmp_path, kind, shape):
    first = model(kind, shape)
    with Writer(str(tmp_path / "m"), artifact.KIND) as out:
        artifact.write(out, first)
    with open_path(tmp_path / "m") as source:
        again = artifact.read(source)
    x = torch.randn(5, *first.shape)
    codes = first.encode(x)
    assert codes.shape == (5, 2)
    torch.testing.assert_close(again.encode(x), codes)
    torch.testing.assert_close(again.decode(codes), first.decode(codes))
    torch.testing.assert_close(again.sample(4, 1), first.sample(4, 1))
    assert again.sample(4, 1, from_prior=True).shape == (4, *first.shape)


def test_constant_columns_come_back_as_their_constant():
    first = model()
    rebuilt = first.decode(torch.randn(3, 2))
    assert rebuilt[:, 4].tolist() == [4.0] * 3
    assert rebuilt[:, 6].tolist() == [6.0] * 3


@pytest.mark.parametrize("damage", ["axes.order", "net.to_mean.bias", "shape", "nan"])
def test_a_damaged_model_is_refused(tmp_path, damage):
    with Writer(str(tmp_path / "m"), artifact.KIND) as out:
        artifact.write(out, model())
    tensors = load_file(tmp_path / "m")
    with open_path(tmp_path / "m") as source:
        metadata = dict(source.metadata)
    if damage == "shape":
        metadata["bntools.vae"] = "{}"
    elif damage == "nan":
        tensors["input.mean"][0] = float("nan")
    else:
        tensors[damage] = tensors[damage][:1].clone()
    save_file(tensors, tmp_path / "m", metadata)
    with open_path(tmp_path / "m") as source, pytest.raises(BnError) as caught:
        artifact.read(source)
    assert caught.value.code == 3


def test_jacobians_are_differences():
    net = model().net.double()
    z = torch.randn(2, 3, dtype=torch.float64)
    step = 1e-6 * torch.eye(3, dtype=torch.float64)
    with torch.no_grad():
        wanted = torch.stack([(net.decode(z + row) - net.decode(z - row)) / 2e-6 for row in step], 1)
    torch.testing.assert_close(jacobians(net.float(), z.float()).double(), wanted, atol=1e-4, rtol=1e-3)


def test_all_axes_in_use_is_the_plain_reconstruction():
    net, x = model().net, torch.randn(9, 6)
    codes = encode_all(net, x)
    prior = Prior(torch.zeros(3), torch.ones(3))
    errors = pruned_errors(net, x, codes, prior, torch.tensor([1, 2, 0]))
    with torch.no_grad():
        torch.testing.assert_close(errors[3], (net.decode(codes.mean) - x).square().sum(1))
        torch.testing.assert_close(errors[0], (net.decode(torch.zeros(9, 3)) - x).square().sum(1))


@pytest.mark.parametrize("form", ["safetensors", "npy", "npz", "idx"])
def test_images_are_read_from_every_format(tmp_path, form):
    x = np.random.default_rng(0).integers(0, 256, (20, 5, 4)).astype(np.uint8)
    path = tmp_path / f"x.{form}"
    if form == "safetensors":
        save_file({"x": torch.from_numpy(x), "factors": torch.arange(40).reshape(20, 2)}, path)
    elif form == "npy":
        np.save(path, x)
    elif form == "npz":
        np.savez(path, x=x, factors=np.arange(40).reshape(20, 2))
    else:
        path = tmp_path / "idx"
        path.mkdir()
        head = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in x.shape)
        (path / "train-images-idx3-ubyte").write_bytes(head + x.tobytes())
    source = open_rows(str(path))
    assert (source.rows, source.shape, source.bytes) == (20, (5, 4), True)
    np.testing.assert_allclose(source.read(3, 9), x[3:9] / np.float32(255))
    if form in ("safetensors", "npz"):
        assert source.beside["factors"]()[3].tolist() == [6, 7]


@pytest.mark.parametrize(
    ("name", "code"), [("missing.npy", 2), ("report.json", 3), ("text.txt", 3), ("empty.npy", 3)]
)
def test_what_holds_no_rows_is_refused(tmp_path, name, code):
    (tmp_path / "report.json").write_text('{"kind": "x"}')
    (tmp_path / "text.txt").write_text("no rows in here, only words\n")
    np.save(tmp_path / "empty.npy", np.zeros((0, 3)))
    with pytest.raises(BnError) as caught:
        open_rows(str(tmp_path / name))
    assert caught.value.code == code


def test_a_mixture_finds_two_clouds_and_samples_them():
    g = torch.Generator().manual_seed(0)
    clouds = torch.cat(
        [torch.randn(1000, 2, generator=g) * 0.1 - 1, torch.randn(3000, 2, generator=g) * 0.3 + 1]
    )
    found = mixture.fit(clouds, 2, 0)
    assert sorted(found.weights.tolist()) == pytest.approx([0.25, 0.75], abs=0.01)
    drawn = found.sample(4000, g)
    assert float((drawn[:, 0] < 0).float().mean()) == pytest.approx(0.25, abs=0.03)  # 4 standard errors
    assert mixture.fit(clouds[:5], 50, 0).weights.shape == (1,)


def test_a_code_that_is_the_factors_scores_1_and_a_turned_one_less():
    factors = np.stack(np.meshgrid(np.arange(5), np.arange(6), np.arange(4), indexing="ij"), -1).reshape(
        -1, 3
    )
    factors = np.repeat(factors, 10, 0)
    codes = factors + 0.01 * np.random.default_rng(0).normal(size=factors.shape)
    best = disentangle.scores(codes, factors)
    assert min(best.values()) > 0.9
    turned = disentangle.scores(
        codes @ np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0], factors
    )
    for name in ("mig", "sap", "dci_disentanglement", "dci_completeness", "modularity"):
        assert turned[name] < best[name] - 0.1
    noise = disentangle.scores(np.random.default_rng(2).normal(size=codes.shape), factors)
    assert max(noise["mig"], noise["sap"], noise["dci_informativeness"]) < 0.1


def test_a_factor_in_two_axes_has_no_gap():
    factors = np.repeat(np.arange(8), 50)[:, None]
    scores = disentangle.scores(np.hstack([factors, factors]).astype(float), factors)
    assert scores["mig"] == pytest.approx(0, abs=1e-9)
    assert scores["sap"] == pytest.approx(0, abs=1e-9)


def test_sprites_are_every_combination_and_stay_within_the_picture():
    images, levels = sprites.render()
    assert images.shape == (18_000, 32, 32)
    assert len(np.unique(levels, axis=0)) == 18_000
    assert images[:, [0, -1]].max() == images[:, :, [0, -1]].max() == 0
    area = images.reshape(len(images), -1).sum(1) / 255
    by_scale = [area[levels[:, 1] == i].mean() for i in range(6)]
    assert np.all(np.diff(by_scale) > 0)
    one = images[(levels[:, 0] == 2) & (levels[:, 1] == 5) & (levels[:, 2] == 0)].reshape(10, 10, 32, 32)
    np.testing.assert_array_equal(one[3, 4], np.roll(one[0, 0], (8, 6), (0, 1)))
