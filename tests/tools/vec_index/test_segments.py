"""Rows added to an index and taken out of it: nothing is coded again, and answers are those of the whole."""

from __future__ import annotations

import contextlib
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from bntools.core.artifact.reader import open_path
from bntools.core.artifact.writer import Writer
from bntools.core.errors import BnError
from bntools.core.methods.vector_index import storage
from bntools.core.methods.vector_index.exact import InMemory, exact
from bntools.core.methods.vector_index.searching import search
from bntools.tools.vec_index import Settings, build_index, segments
from bntools.tools.vec_index.encoder import encode, trained

KINDS = [
    {"bytes": 24, "cells": 16, "second": "lvq8"},
    {"bytes": 12, "code": "bits", "metric": "cos"},
    {"code": "lvq4", "metric": "l2"},
    {"code": "f16"},
    {"bytes": 20, "cells": 8, "second": "f16", "metric": "l2"},
]


@contextlib.contextmanager
def silent(what, total):
    yield lambda count: None


def make(base, queries=None, **given):
    return build_index(InMemory(base), queries, Settings(**given), silent)


@pytest.fixture(scope="module")
def planted():
    random = np.random.default_rng(0)
    scale = np.geomspace(4, 0.2, 32)
    base = (random.normal(size=(1200, 32)) * scale).astype(np.float32)
    queries = (random.normal(size=(360, 32)) / scale).astype(np.float32)
    return base, queries[:300], queries[300:]


@pytest.mark.parametrize("given", KINDS)
def test_segments_answer_as_one_index_of_all_rows_would(planted, given):
    base, learn, test = planted
    index = make(base[:700], learn, method="sphere", **given)
    grown = segments.add(segments.add(index, InMemory(base[700:1000])), InMemory(base[1000:]))
    assert len(grown.parts) == 3
    assert len(grown) == 1200
    rerank = 40 if "second" in given else 0
    apart, whole = (search(i, test, 10, rerank=rerank) for i in (grown, segments.join([grown])))
    assert (apart.rows == whole.rows).all()
    assert np.allclose(apart.scores, whole.scores, rtol=1e-6)
    if "cells" not in given:  # with cells positions of the joined rows differ, not what they hold
        assert (search(index, test, 700).rows == search(segments.join([index]), test, 700).rows).all()


@pytest.mark.parametrize("given", KINDS)
def test_deleted_rows_are_never_found_and_leave_the_others_as_they_were(planted, given):
    base, learn, test = planted
    index = segments.add(make(base[:900], learn, method="sphere", **given), InMemory(base[900:]))
    before = search(index, test, 60)
    gone = np.unique(before.rows[:, :5])
    smaller = segments.delete(segments.delete(index, gone[::2]), gone[1::2])
    assert len(smaller) == 1200 - len(gone)
    assert smaller.code is index.code
    after = search(smaller, test, 10)
    wanted = [row[~np.isin(row, gone)][:10] for row in before.rows]
    assert all((a[: len(w)] == w).all() for a, w in zip(after.rows, wanted, strict=True))
    joined = segments.join([smaller])
    assert (joined.ids[search(joined, test, 10).rows] == after.rows).all()
    everything = search(smaller, test[:3], len(smaller))
    assert all(
        len(set(row)) == len(smaller) and not np.isin(row, gone).any() for row in everything.rows.tolist()
    )
    with pytest.raises(BnError, match="is not in the index"):
        segments.delete(smaller, gone[:1])
    with pytest.raises(BnError, match="nothing would be left"):
        segments.delete(smaller, np.setdiff1d(np.arange(1200), gone))


def test_few_cells_hold_enough_rows_also_after_deletion(planted):
    base, learn, test = planted
    index = make(base, learn, bytes=16, cells=32, method="sphere")
    smaller = segments.delete(index, np.arange(1150))
    hits = search(smaller, test, 40, probe=0.001)
    assert (hits.rows >= 1150).all()
    assert all(len(set(row)) == 40 for row in hits.rows.tolist())


def test_ids_go_on_from_the_highest_or_are_those_given_and_meet_none_twice(planted):
    base, learn, _ = planted
    index = make(base[:1000], learn, bytes=12, method="sphere", cells=0)
    assert segments.add(index, InMemory(base[1000:])).ids.tolist() == list(range(1200))
    named = replace(index, names=np.arange(1000) * 3)
    grown = segments.add(named, InMemory(base[1000:1010]))
    assert grown.ids[1000:].tolist() == list(range(2998, 3008))
    grown = segments.add(named, InMemory(base[1000:1002]), np.array([1, 2]))
    assert grown.ids[1000:].tolist() == [1, 2]
    with pytest.raises(BnError, match="id 6 is in the index"):
        segments.add(named, InMemory(base[1000:1001]), np.array([6]))
    free = segments.delete(named, np.array([6]))
    assert segments.add(free, InMemory(base[1000:1001]), np.array([6])).ids[-1] == 6


def test_parts_coded_apart_are_gathered_and_others_are_not(planted):
    base, learn, test = planted
    one = make(base[:500], learn, bytes=16, method="sphere", cells=0)
    parts = [segments.segment(one, InMemory(base[a:b])) for a, b in ((500, 800), (800, 1200))]
    joined = segments.join([one, *parts])
    assert joined.names is None
    grown = segments.add(one, InMemory(base[500:]))
    assert (search(joined, test, 10).rows == search(grown, test, 10).rows).all()
    with pytest.raises(BnError, match="of their own"):
        segments.join([one, make(base[500:], learn, bytes=16, method="sphere", cells=0)])


@pytest.mark.parametrize("given", KINDS)
def test_a_file_gives_back_what_was_written_and_is_mapped(planted, given, tmp_path):
    base, learn, test = planted
    index = segments.add(make(base[:1000], learn, method="sphere", **given), InMemory(base[1000:]))
    index = segments.delete(index, np.array([3, 1100]))
    with Writer(str(tmp_path / "x.vec"), storage.KIND) as out:
        storage.write(index, out)
    with open_path(tmp_path / "x.vec") as file:
        back = storage.read(file)
    assert len(back.parts) == 2
    rerank = 30 if "second" in given else 0
    one, two = (search(i, test, 12, rerank=rerank) for i in (index, back))
    assert (one.rows == two.rows).all()
    assert (one.scores == two.scores).all()
    large = back.code.tensors()["codes"]
    assert not large.flags.owndata
    assert not large.flags.writeable


def test_memory_of_a_build_grows_by_the_codes_and_not_by_the_vectors():
    """At most twice the first code, the second and 40 bytes a row: 1,000,000 x 384 with 96 + 388 then is 0.7 GB."""
    random = np.random.default_rng(0)
    width, size = 96, 12
    base = random.normal(size=(4 * 8192, width)).astype(np.float32)
    by = trained(make(base[:2000], bytes=size, second="lvq8", cells=4))

    def peak(rows):
        tracemalloc.start()
        encode(InMemory(base[:rows]), by)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    slope = (peak(4 * 8192) - peak(2 * 8192)) / (2 * 8192)
    assert slope < 2 * size + (width + 4) + 40 < 4 * width


def test_added_rows_are_checked(planted):
    base, learn, _ = planted
    index = make(base, learn, bytes=12, metric="cos", cells=0)
    broken = base[:20].copy()
    broken[7, 1] = np.inf
    with pytest.raises(BnError, match="row 7"):
        segments.add(index, InMemory(broken))
    broken[7] = 0
    with pytest.raises(BnError, match="row 7 is zero"):
        segments.add(index, InMemory(broken))


def test_true_neighbours_are_among_added_rows_too(planted):
    base, learn, test = planted
    grown = segments.add(make(base[:600], learn, bytes=24, method="sphere"), InMemory(base[600:]))
    truth = exact(InMemory(base), test, 10, "ip").rows
    found = np.array([np.isin(t, r).mean() for t, r in zip(truth, search(grown, test, 30).rows, strict=True)])
    late = np.isin(truth, np.arange(600, 1200)).mean()
    assert late > 0.3
    assert found.mean() > 0.8
