"""LaBo's selection against brute force, and what is dropped before it."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from bntools.tools.cbm_build.banks import select


def utility(chosen, value, similarity, weight):
    return value[list(chosen)].sum() + weight * similarity[:, list(chosen)].max(1).sum()


@pytest.mark.parametrize("seed", range(8))
def test_greedy_is_within_its_guarantee_of_the_best_set(seed):
    draw = np.random.default_rng(seed)
    points = draw.normal(size=(9, 4))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    similarity, value = np.maximum(points @ points.T, 0), draw.random(9)
    best = max(utility(s, value, similarity, 0.7) for s in combinations(range(9), 3))
    chosen = select.greedy(value, similarity, 3, 0.7)
    assert len(set(chosen.tolist())) == 3
    assert utility(chosen, value, similarity, 0.7) >= (1 - 1 / np.e) * best
    assert utility(chosen, value, similarity, 0.7) <= best + 1e-9


def test_a_concept_that_fits_one_class_tells_more_than_one_that_fits_all():
    centroids = np.eye(4, dtype=np.float32)
    vectors = np.array([[3, 0, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]], np.float32)
    value = select.discriminability(centroids, vectors)
    assert value[0] > value[2] > value[1]
    assert value[1] == pytest.approx(0, abs=1e-9)


def test_a_concept_of_two_classes_is_open_to_both_and_a_class_without_any_chooses_among_all():
    vectors = np.eye(6, dtype=np.float32)
    owner = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]], bool)
    chosen = select.labo(vectors, np.eye(3, 6, dtype=np.float32), owner, 2)
    assert {0, 1, 2} <= set(chosen.tolist())


def test_names_are_whole_words_and_copies_go():
    assert select.names_a_class(["a cat sits", "category", "Big_Dog"], ["cat", "big dog"]).tolist() == [
        True,
        False,
        True,
    ]
    vectors = np.array([[1, 0], [0, 1], [2, 0.01], [1, 1]], np.float32)
    assert select.duplicates(vectors, 0.95).tolist() == [False, False, True, False]
