"""Samples beside real images: copies of them score as real ones do, and what is wrong with samples shows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bntools.core.datasets.samples import Samples
from bntools.core.errors import BnError
from bntools.core.methods.image_features import features
from bntools.core.methods.sample_scores import images

GENERATOR = np.random.default_rng(0)


def blobs(count: int, spread: float, seed: int) -> np.ndarray:
    """Images [count, 1, 28, 28] in [-1, 1] of a bright spot at random places."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:28, :28]
    centre = 14 + spread * generator.standard_normal((count, 2, 1, 1))
    image = np.exp(-((y - centre[:, 0]) ** 2 + (x - centre[:, 1]) ** 2) / 12)
    return (2 * image[:, None] - 1).astype(np.float32)


def samples_of(**x: np.ndarray) -> Samples:
    label = np.arange(len(next(iter(x.values())))) % 10
    return Samples(x, label, {"model": "blobs"}, [])


@pytest.fixture(scope="module")
def reference():
    return images.Reference(features(images.pixels(blobs(600, 3.0, 1))), None)


def test_samples_of_the_same_kind_reach_the_floor_and_others_do_not(reference):
    good, bad = (
        images.score_rows(samples_of(x0=blobs(200, spread, 2)), reference=reference) for spread in (3.0, 0.3)
    )
    floor = good["floor"]
    assert floor["n"] == 200
    assert good["rows"][0]["frechet"] < 2 * floor["mean"]
    assert bad["rows"][0]["frechet"] > 2 * floor["mean"]
    assert bad["rows"][0]["diversity"]["mean"] < 0.5 * good["rows"][0]["diversity"]["mean"]


def test_a_few_samples_have_no_frechet_distance(reference):
    scores = images.score_rows(samples_of(x0=blobs(20, 3.0, 2)), reference=reference)
    assert scores["rows"][0]["frechet"] is None
    assert scores["floor"] is None


def test_the_distance_to_full_is_relative():
    x = blobs(20, 1.0, 3)
    scores = images.score_rows(samples_of(x0=1.1 * x, full=x), reference=None)
    main, full = scores["rows"]
    assert main["distance"]["mean"] == pytest.approx(0.1, abs=1e-5)
    assert main["distance"]["se"] == pytest.approx(0.0, abs=1e-5)
    assert full["distance"] is None


def test_diversity_is_the_mean_over_pairs_of_a_class():
    rows, label = GENERATOR.standard_normal((12, 5)).astype(np.float32), np.repeat([0, 1, 2], 4)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    slow = [
        1 - unit[a] @ unit[b]
        for g in range(3)
        for a, b in itertools.combinations(np.flatnonzero(label == g), 2)
    ]
    result = images.diversity(rows, label)
    assert result is not None
    assert result["mean"] == pytest.approx(np.mean(slow), abs=1e-6)
    assert result["groups"] == 3
    assert images.diversity(rows[:3], np.arange(3)) is None


def test_sampled_pairs_meet_the_mean_of_all():
    rows = GENERATOR.standard_normal((300, 4)).astype(np.float32) + 1
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    exact = 1 - ((unit @ unit.T).sum() - 300) / (300 * 299)
    result = images.diversity(rows, None)
    assert result is not None
    assert result["mean"] == pytest.approx(exact, abs=4 * 0.6 / images._PAIRS**0.5)


def test_features_of_a_model_of_one_s_own_take_the_place_of_the_classifier_s():
    x, own = blobs(200, 1.0, 4), GENERATOR.standard_normal((200, 3)).astype(np.float32)
    real = images.Reference(GENERATOR.standard_normal((500, 3)).astype(np.float32), None)
    row = images.score_rows(samples_of(x0=x), reference=real, own=own)["rows"][0]
    assert row["frechet"] < 0.2
    assert row["accuracy"] is None
    with pytest.raises(BnError) as caught:
        images.score_rows(samples_of(x0=x), reference=real, own=own[:, :2])
    assert caught.value.code == 3


def test_videos_are_no_pictures():
    with pytest.raises(BnError) as caught:
        images.pixels(np.zeros((2, 3, 4, 8, 8), np.float32))
    assert caught.value.code == 3
