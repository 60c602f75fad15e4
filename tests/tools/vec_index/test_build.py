"""Indices end to end in memory: recall, promises, rows added and taken out."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from bntools.core.errors import BnError
from bntools.core.methods.vector_index.exact import InMemory, exact, exact_scores, recalls
from bntools.core.methods.vector_index.searching import search
from bntools.tools.vec_index import Settings, build_index


@contextlib.contextmanager
def silent(what, total):
    yield lambda count: None


def make(base, queries=None, **given):
    return build_index(InMemory(base), queries, Settings(**given), silent)


def recall(index, base, queries, k=10, **given):
    hits = search(index, queries, k, **given)
    truth = exact(InMemory(base), queries, k, index.metric)
    return recalls(hits.rows, truth, exact_scores(InMemory(base), queries, hits.rows, index.metric)).mean()


@pytest.fixture(scope="module")
def planted():
    """2,000 vectors of 48 coordinates and 500 queries that vary where the vectors hardly do."""
    random = np.random.default_rng(0)
    scale = np.geomspace(4, 0.2, 48)
    base = (random.normal(size=(2000, 48)) * scale).astype(np.float32)
    queries = (random.normal(size=(500, 48)) / scale).astype(np.float32)
    return base, queries[:300], queries[300:]


def test_shifted_queries_are_served_better_by_an_index_that_has_seen_such(planted):
    base, learn, test = planted
    aware = recall(make(base, learn, bytes=24), base, test)
    blind = recall(make(base, bytes=24), base, test)
    assert aware > blind + 0.07
    assert make(base, learn, bytes=24).facts["method"] == "sphere"


def test_word_codes_keep_more_than_grids_and_more_bytes_keep_more(planted):
    base, learn, test = planted
    found = {
        (c, b): recall(make(base, learn, bytes=b, code=c), base, test)
        for c in ("vq", "bits")
        for b in (12, 24)
    }
    assert found["vq", 12] > found["bits", 12]
    assert found["vq", 24] > found["vq", 12]


@pytest.mark.parametrize("metric", ["ip", "cos", "l2"])
def test_a_second_code_brings_back_what_the_first_confused(planted, metric):
    base, learn, test = planted
    index = make(base, learn, bytes=20, second="lvq8", metric=metric, cells=16)
    assert recall(index, base, test, rerank=200) > recall(index, base, test) + 0.1
    assert recall(index, base, test, rerank=2000) > 0.95


@pytest.mark.parametrize("code", ["lvq8", "lvq4", "lvq4x8", "f16"])
@pytest.mark.parametrize("method", ["flat", "sphere", "leanvec-es"])
def test_plain_codes_of_all_coordinates_find_nearly_all(planted, code, method):
    base, learn, test = planted
    index = make(base, learn, code=code, method=method, dims=48)
    assert recall(index, base, test) > (0.5 if code == "lvq4" else 0.93)


def test_scores_are_those_of_the_decoded_vectors(planted):
    base, learn, test = planted
    index = make(base, learn, bytes=24, cells=8)
    hits = search(index, test[:5], 7)
    decoded = np.empty((2000, 48), np.float32)
    decoded[index.order] = index.code.decode(0, 2000) + index.cells.centroids[np.sort(index.cells.cell)]
    scores = (test[:5] @ index.query_map) @ (decoded + index.mean).T
    assert (np.argsort(-scores, 1, kind="stable")[:, :7] == hits.rows).all()
    assert np.allclose(np.take_along_axis(scores, hits.rows, 1), hits.scores, rtol=1e-3, atol=1e-3)


def test_squared_distances_come_back_as_scores(planted):
    base, learn, test = planted
    index = make(base, learn, metric="l2", code="f16", method="flat")
    hits = search(index, test[:4], 3)
    truth = -((test[:4, None] - base[hits.rows]) ** 2).sum(2)
    assert np.allclose(hits.scores, truth, rtol=2e-2, atol=0.5)


def test_a_promise_of_recall_holds_on_queries_never_seen(planted):
    base, learn, test = planted
    index = make(base, learn, recall=0.7, method="sphere")
    assert index.facts["recall_heldout"]["mean"] >= 0.7
    assert recall(index, base, test) >= 0.7 - 0.05
    with pytest.raises(BnError, match="not reached"):
        make(base, learn, recall=0.9999)


def test_permuted_rows_give_permuted_ids(planted):
    base, learn, test = planted
    order = np.random.default_rng(1).permutation(2000)
    one = search(make(base, learn, code="lvq8", method="sphere"), test, 5).rows
    two = search(make(base[order], learn, code="lvq8", method="sphere"), test, 5).rows
    assert (order[two] == one).mean() > 0.99


def test_equal_vectors_come_in_the_order_of_their_rows_and_count_as_equal():
    random = np.random.default_rng(0)
    base = np.repeat(random.normal(size=(60, 8)), 3, axis=0).astype(np.float32)
    index = make(base, method="flat", code="f16")
    hits = search(index, base[:5], 6)
    assert (np.diff(hits.rows[:, :3], axis=1) == 1).all()
    assert recall(index, base, base[:20], k=2) == 1


def test_visiting_some_cells_finds_most_and_always_k(planted):
    base, learn, test = planted
    index = make(base, learn, bytes=24, cells=32)
    whole, part = recall(index, base, test), recall(index, base, test, probe=0.4)
    assert whole - 0.3 < part <= whole + 1e-9
    assert (search(index, test, 500, probe=0.001).scores > -np.inf).all()


def test_threads_do_not_change_an_index_or_its_hits(planted):
    base, learn, test = planted
    one, two = (make(base, learn, bytes=16, cells=8, threads=t) for t in (1, 2))
    assert (one.code.blocks == two.code.blocks).all()
    assert (search(one, test, 5).rows == search(two, test, 5, threads=2).rows).all()


@pytest.mark.parametrize(
    ("queries", "given", "code"),
    [
        (None, {"method": "leanvec-fw"}, 2),
        (None, {"method": "leanvec-es"}, 2),
        (None, {"recall": 0.9}, 2),
        (99, {"recall": 0.9}, 2),
        (None, {"bytes": 4}, 2),
        (None, {"bytes": 101}, 2),
        (None, {"dims": 49}, 2),
    ],
)
def test_settings_that_fit_no_data_are_refused(planted, queries, given, code):
    base, learn, _ = planted
    with pytest.raises(BnError) as refused:
        make(base, None if queries is None else learn[:queries], **given)
    assert refused.value.code == code


def test_bad_rows_are_named(planted):
    broken = planted[0].copy()
    broken[777, 3] = np.nan
    with pytest.raises(BnError, match="row 777"):
        make(broken)
    broken[777] = 0
    with pytest.raises(BnError, match="row 777"):
        make(broken, metric="cos")
