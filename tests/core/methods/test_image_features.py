"""The embedded classifier of digits: shapes it takes, what it tells apart, and that it is small."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bntools.core.datasets.labelled import read_idx
from bntools.core.errors import BnError
from bntools.core.methods import image_features
from bntools.core.methods.image_features import classify, features, floor, frechet
from bntools.tools.fetch.obtain import fetch


@pytest.fixture(scope="module")
def mnist(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fetched") / "mnist"
    fetch("mnist", folder)
    return tuple(read_idx(folder / f"t10k-{name}-ubyte") for name in ("images-idx3", "labels-idx1"))


def strokes(seed=0, rows=64):
    """A vertical bar a row, moved and dimmed: what a pen's one looks like."""
    rng = np.random.default_rng(seed)
    images = np.zeros((rows, 28, 28), np.float32)
    for image in images:
        x, y = rng.integers(12, 15), rng.integers(3, 7)
        image[y : y + 18, x : x + 3] = rng.uniform(0.7, 1)
    return images


def test_a_bar_is_a_one():
    assert (classify(strokes()).argmax(1) == 1).mean() > 0.9
    np.testing.assert_allclose(classify(strokes()).sum(1), 1, rtol=1e-5)


def test_padding_channels_and_whole_numbers_change_nothing():
    images = np.round(strokes() * 255).astype(np.uint8)
    plain = features(images)
    assert plain.shape == (64, image_features.WIDTH)
    np.testing.assert_allclose(features(images.astype(np.float32) / 255), plain, atol=1e-4)
    padded = torch.nn.functional.pad(torch.from_numpy(images), (2, 2, 2, 2))[:, None]
    np.testing.assert_allclose(features(padded), plain, atol=1e-4)
    np.testing.assert_allclose(features(np.repeat(images[:, None], 3, 1)), plain, atol=1e-3)


def test_noise_is_farther_from_bars_than_bars_are():
    real = features(strokes(0, 400))
    same, noise = features(strokes(1, 200)), features(np.random.default_rng(2).random((200, 28, 28)))
    level = floor(real, 200)
    assert frechet(same, real[:200]) < 3 * level.mean
    assert frechet(noise, real[:200]) > 30 * level.mean


def test_the_weights_are_small():
    assert image_features.WEIGHTS.stat().st_size <= 200_000


@pytest.mark.parametrize("images", [np.zeros((0, 28, 28)), np.zeros((4, 784)), np.full((2, 28, 28), np.nan)])
def test_what_is_no_image_is_refused(images):
    with pytest.raises(BnError) as caught:
        features(images)
    assert caught.value.code == 3


@pytest.mark.real
def test_test_digits_are_read_and_two_halves_are_near(mnist):
    images, labels = mnist
    found = features(images[:4000])
    assert (classify(images[:4000]).argmax(1) == labels[:4000]).mean() > 0.985
    level = floor(found, 1000)
    wrong = features(images[:4000][labels[:4000] == 3])
    assert frechet(wrong, found[:1000]) > 20 * level.mean
