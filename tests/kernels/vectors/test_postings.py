"""Inverted lists: what was put in comes out, sums are those of the sparse product, damage is seen."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array

from bntools.kernels.vectors import postings


def sparse(random, rows, kept, count):
    words = np.array([random.choice(count, kept, replace=False) for _ in range(rows)])
    return words, random.integers(0, 256, (rows, kept)).astype(np.uint8)


def matrix(words, impacts, count):
    place = np.repeat(np.arange(len(words)), words.shape[1])
    return csr_array((impacts.ravel().astype(np.int64), (place, words.ravel())), shape=(len(words), count))


@pytest.mark.parametrize("rows", [1, 50, 40_000])
def test_sums_are_those_of_the_sparse_product_and_equal_ones_come_by_row(rows):
    random = np.random.default_rng(rows)
    words, impacts = sparse(random, rows, 5, 90)
    asked, weights = sparse(random, 6, 4, 90)
    lists = postings.build(words, impacts, 90)
    products = (matrix(asked, weights, 90) @ matrix(words, impacts, 90).T).toarray()
    k = min(rows, 20)
    best, sums = postings.search(lists, asked, weights, rows, k)
    order = np.argsort(-products, axis=1, kind="stable")[:, :k]
    assert (best == order).all()
    assert (sums == np.take_along_axis(products, order, 1)).all()
    held = matrix(words, impacts, 90)
    assert (postings.lengths(lists, rows) == (held > 0).sum(0)).all()


def test_a_posting_takes_two_bytes_where_rows_are_near_and_one_more_per_seven_bits():
    words = np.zeros((40_000, 1), np.int64)
    impacts = np.zeros((40_000, 1), np.uint8)
    for rows, size in (([0, 1, 127], 6), ([0, 200], 5), ([0, 20_000], 6)):
        impacts[:] = 0
        impacts[rows] = 9
        assert len(postings.build(words, impacts, 3).data) == size


def test_damaged_lists_are_refused():
    random = np.random.default_rng(0)
    lists = postings.build(*sparse(random, 300, 3, 20), 20)
    with pytest.raises(ValueError, match="not whole"):
        postings.lengths(lists, 200)
    for start in (lists.start + 1, lists.start[::-1].copy(), np.r_[lists.start[:-1], lists.start[-1] - 1]):
        with pytest.raises(ValueError, match=r"cover|not whole"):
            postings.lengths(lists._replace(start=start), 300)
    for data in (lists.data | 128, np.zeros_like(lists.data)):
        with pytest.raises(ValueError, match="not whole"):
            postings.lengths(lists._replace(data=data), 300)
