"""An index with a graph: what its walks lose against a scan, whatever the map, and what survives changes."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from bntools.core.errors import BnError
from bntools.core.methods.vector_index.exact import InMemory, exact, exact_scores, recalls
from bntools.core.methods.vector_index.searching import search
from bntools.tools.vec_index import Settings, build_index, segments, ways


@contextlib.contextmanager
def silent(what, total):
    yield lambda count: None


def make(base, queries=None, **given):
    return build_index(InMemory(base), queries, Settings(**given), silent)


def recall(index, base, queries, **given):
    hits = search(index, queries, 10, **given)
    truth = exact(InMemory(base), queries, 10, index.metric)
    return recalls(hits.rows, truth, exact_scores(InMemory(base), queries, hits.rows, index.metric)).mean()


@pytest.fixture(scope="module")
def planted():
    """3,000 vectors in 40 clusters, and queries near them in another spread."""
    random = np.random.default_rng(0)
    scale = np.geomspace(3, 0.3, 32)
    centres = random.normal(size=(40, 32)) * scale
    base = (centres[random.integers(0, 40, 3000)] + 0.5 * random.normal(size=(3000, 32)) * scale).astype("f")
    queries = (random.normal(size=(500, 32)) / scale**0.5).astype("f")
    return base, queries[:400], queries[400:]


@pytest.mark.parametrize("metric", ["cos", "l2"])
@pytest.mark.parametrize("method", ["sphere", "leanvec-id", "flat"])
def test_walks_find_nine_tenths_of_what_a_scan_finds_in_every_gauge(planted, method, metric):
    base, learn, test = planted
    index = make(base, learn, bytes=24, method=method, metric=metric, graph=True, cells=16)
    assert recall(index, base, test, ef=200) >= 0.9 * recall(index, base, test, probe=1.0)


def test_the_breadth_chosen_keeps_recall_on_held_out_queries(planted):
    base, learn, test = planted
    index = make(base, learn, bytes=24, method="sphere", metric="cos", graph=True)
    assert index.facts["ef"] in ways.BREADTHS
    assert index.facts["graph_bytes_per_vector"] == 4 * 48
    whole, walked = recall(index, base, test, probe=1.0), recall(index, base, test)
    assert (
        walked >= whole - ways.LOSS - 0.03
    )  # 80 queries chose it, 100 others measure it: standard error .01 each
    assert make(base, bytes=24, graph=True).facts["ef"] == 100


def test_a_graph_outlives_deletion_addition_and_joining(planted):
    base, learn, test = planted
    index = make(
        base[:2500], learn, bytes=24, method="sphere", metric="cos", graph=True, cells=8, second="lvq8"
    )
    grown = segments.add(index, InMemory(base[2500:]))
    assert recall(grown, base, test, rerank=50, ef=200) > 0.85
    gone = np.unique(search(grown, test, 10).rows[:, :5])
    smaller = segments.delete(grown, gone)
    hits = search(smaller, test, 10, ef=200)
    assert not np.isin(hits.rows, gone).any()
    scanned = search(smaller, test, 10, probe=1.0)
    assert np.mean([np.isin(a, b).mean() for a, b in zip(scanned.rows, hits.rows, strict=True)]) > 0.9
    joined = segments.join([smaller])
    assert joined.graph is None
    linked = ways.linked_again(joined, smaller, 0, silent)
    again = linked.ids[search(linked, test, 10, ef=200).rows]
    assert np.mean([np.isin(a, b).mean() for a, b in zip(scanned.rows, again, strict=True)]) > 0.9


def test_a_query_that_meets_only_deleted_rows_is_answered_by_the_scan(planted):
    base, learn, test = planted
    index = make(base, learn, bytes=24, method="sphere", metric="cos", graph=True)
    smaller = segments.delete(index, np.arange(2980))
    hits = search(smaller, test, 15, ef=20)
    assert (hits.rows >= 2980).all()
    assert (hits.rows == search(smaller, test, 15, probe=1.0).rows).mean() > 0.99


def test_coordinates_of_the_graph_give_queries_and_vectors_one_spread(planted):
    base, learn, _ = planted
    index = make(base, learn, bytes=24, method="sphere", graph=True)
    scale = index.graph.scale
    keep = scale > 0
    assert 1 < keep.sum() <= 32
    asked = (learn @ index.query_map)[:, keep] / scale[keep]
    own = ((base @ index.base_map) - index.mean)[:, keep] * scale[keep]
    ratio = (asked**2).mean(0) / own.var(0)
    assert np.allclose(ratio, 1, atol=0.4)  # 320 of the 400 queries were learnt from


def test_plain_codes_have_no_graph(planted):
    with pytest.raises(BnError, match="--graph walks by"):
        make(planted[0], code="lvq8", graph=True)
