"""Nearest neighbours are the plain search's, whatever the data do to float32."""

from __future__ import annotations

import numpy as np
import pytest

from bntools.kernels.neighbours.exact import count_within, nearest, nearest_reference


def clouds() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "gaussian": rng.normal(size=(5000, 12)),  # more than a tile of points
        "line": rng.normal(size=(300, 1)),
        "far from the origin": rng.normal(size=(600, 40)) + 1e4,
        "tight clusters far apart": 1e-7 * rng.normal(size=(900, 4)) + 1e3 * rng.integers(0, 3, (900, 1)),
        "duplicates": np.repeat(rng.normal(size=(40, 5)), 30, axis=0),
        "ties": rng.integers(0, 3, (700, 5)).astype(float),
    }


@pytest.mark.parametrize("name", list(clouds()))
@pytest.mark.parametrize("threads", [1, 3])
def test_neighbours_are_those_of_the_plain_search(name, threads):
    points = clouds()[name]
    queries = np.arange(0, len(points), max(1, len(points) // 150))
    found, wanted = nearest(points, queries, 17, threads), nearest_reference(points, queries, 17)
    np.testing.assert_array_equal(found.indices, wanted.indices)
    np.testing.assert_allclose(found.distances, wanted.distances, rtol=1e-12)


@pytest.mark.parametrize("name", ["gaussian", "tight clusters far apart", "ties"])
def test_counts_within_a_radius_are_those_of_all_distances(name):
    points = clouds()[name]
    queries = np.arange(0, len(points), 37)
    apart = np.sqrt(((points[queries, None] - points[None]) ** 2).sum(2))
    radii = np.array([np.sort(apart, 1)[:, 5].mean(), np.sqrt(2.0)])
    wanted = np.stack([(apart < r).sum(1) - (r > 0) for r in radii], 1)
    np.testing.assert_array_equal(count_within(points, queries, radii), wanted)


def test_every_other_point_can_be_asked_for_and_no_more():
    points = clouds()["line"][:30]
    found = nearest(points, np.arange(30), 29)
    assert all(sorted(row) == [j for j in range(30) if j != i] for i, row in enumerate(found.indices))
    with pytest.raises(ValueError, match="1 to 29"):
        nearest(points, np.arange(30), 30)
