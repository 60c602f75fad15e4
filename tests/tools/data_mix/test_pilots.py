"""Pilot runs: exact nested draws, heads at their optimum, transport and its gradient, runs kept and made again."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.mixtures import rows

from bntools.core.errors import BnError
from bntools.core.work.shards import Shard
from bntools.tools.data_mix.pilots import execute, heads, plan, transport
from bntools.tools.data_mix.pilots.heads import Rows, Task
from bntools.tools.data_mix.pilots.sources import Source, draw, exact_counts, gathered, standardised


def as_rows(arrays):
    return Rows(arrays["x"].astype(float), arrays["y"])


def pool():
    found = [as_rows(rows((200, 20, 20), 0)), as_rows(rows((20, 200, 200), 1))]
    return [Source(name, r) for name, r in zip("ab", found, strict=True)], as_rows(rows((80, 80, 80), 2))


@given(st.integers(2, 6), st.integers(0, 5000), st.integers(0, 10**6))
def test_counts_add_up_and_are_within_one_of_their_share(sources, n, seed):
    weights = np.random.default_rng(seed).dirichlet(np.ones(sources))
    counts = exact_counts(weights, n)
    assert counts.sum() == n
    assert np.abs(counts - weights * n).max() < 1


def test_a_larger_draw_holds_the_smaller_one_and_repeats_nothing_early():
    small, large = draw([100, 50], np.array([0.5, 0.5]), 40, 3), draw([100, 50], np.array([0.5, 0.5]), 100, 3)
    for a, b in zip(small.rows, large.rows, strict=True):
        assert b[: len(a)].tolist() == a.tolist()
        assert len(set(b.tolist())) == len(b)
    assert large.epochs == 1


def test_a_source_that_is_used_up_starts_over_and_says_so():
    found = draw([10, 100], np.array([0.5, 0.5]), 50, 0)
    assert found.epochs == 2.5
    assert np.bincount(found.rows[0]).tolist() == [3, 3, 3, 3, 3, 2, 2, 2, 2, 2] or max(np.bincount(found.rows[0])) == 3


def test_the_logistic_head_is_at_the_optimum_of_its_objective():
    sources, goal = pool()
    train = gathered(sources, draw([240, 420], np.array([0.5, 0.5]), 200, 0))
    w = heads._logistic_path(train, 3, (5.0,))[-1]
    x = np.hstack([train.x, np.ones((200, 1))])
    p = np.exp(x @ w)
    p /= p.sum(1, keepdims=True)
    gradient = x.T @ (p - np.eye(3)[train.y]) + 5.0 * np.vstack([w[:-1], np.zeros((1, 3))])
    assert np.abs(gradient).max() / 200 < 2 * heads._TOLERANCE
    assert goal.x.shape[1] == 3


@pytest.mark.parametrize("name", sorted(heads.HEADS))
def test_every_head_beats_the_largest_class_by_far(name):
    sources, goal = pool()
    train = gathered(sources, draw([240, 420], np.array([0.5, 0.5]), 300, 0))
    scores = heads.HEADS[name](Task(train, goal, 3))
    # Gaussian classes 2 sqrt 2 apart: a tenth to a fifth wrong, the largest class two thirds
    assert (scores.argmax(1) != goal.y).mean() < 0.3


def test_a_class_that_is_not_drawn_is_no_failure():
    train = Rows(np.random.default_rng(0).standard_normal((20, 3)), np.repeat([0, 2], 10))
    for head in heads.HEADS.values():
        assert np.isfinite(head(Task(train, train, 3, 1.0))).all()


def test_transport_is_what_pot_says_and_falls_as_its_gradient_says():
    ot = pytest.importorskip("ot")
    sources, goal = standardised(*pool())
    settings = transport.Settings(rows=60)
    found = transport.planes(sources, goal, settings)
    costs = transport._costs(sources, goal, settings)

    def exact(p):
        mass, target = np.repeat(p / 60, 60), np.full(costs.shape[1], 1 / costs.shape[1])
        return ot.emd2(mass[mass > 0], target, costs[mass > 0])

    on_grid = np.array([[0.25, 0.75], [0.5, 0.5], [1.0, 0.0]])
    assert found(on_grid)[0] == pytest.approx([exact(p) for p in on_grid], rel=1e-6)
    p, step = np.array([[0.331, 0.669]]), np.array([[0.05, -0.05]])
    assert found(p)[0][0] == pytest.approx(exact(p[0]), rel=0.01)
    rise = (exact((p + step)[0]) - exact((p - step)[0])) / 0.1
    slope = found(p)[1][0]
    assert slope[0] - slope[1] == pytest.approx(rise, rel=0.05)


@pytest.mark.parametrize("label", ["means", "gaussian"])
def test_redrawn_labels_raise_the_distance(label):
    pytest.importorskip("ot")
    clean, noisy = as_rows(rows((100, 100, 100), 0)), as_rows(rows((100, 100, 100), 0, 0.6))
    found = transport.planes(
        [Source("clean", clean), Source("noisy", noisy)], as_rows(rows((100, 100, 100), 1)),
        transport.Settings(rows=80, label=label),
    )  # fmt: skip
    distance = found(np.eye(2))[0]
    assert distance[1] > 1.1 * distance[0]


def test_bures_distance_of_equal_shapes_is_that_of_their_means():
    x = np.random.default_rng(0).standard_normal((50, 2))
    both = Rows(np.vstack([x, x + [3.0, 4.0]]), np.repeat([0, 1], 50))
    assert transport._bures(both)[0, 1] == pytest.approx(25, abs=1e-6)


def pilots(**trainer):
    return plan.plan(("a", "b"), (20, 40), 4, seed=0, trainer=trainer)


def test_the_same_mixtures_are_run_at_every_size():
    found = pilots()
    assert [p.n for p in found] == [20, 40] * 4
    assert all(a.weights == b.weights for a, b in zip(found[::2], found[1::2], strict=True))
    assert all(sum(p.weights.values()) == pytest.approx(1, abs=1e-9) for p in found)
    assert len({p.key for p in found} | {p.key for p in pilots(head="other")}) == 16


def test_a_killed_job_goes_on_to_the_same_bytes(tmp_path):
    calls = []

    def train(pilot):
        calls.append(pilot.key)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return {"metric": pilot.n / 100, "kind": "error"}

    def step(count):
        pass

    with pytest.raises(KeyboardInterrupt):
        execute.make(pilots(), train, plan.Kept(str(tmp_path / "a")), part=None, step=step)
    execute.make(pilots(), train, plan.Kept(str(tmp_path / "a")), part=None, step=step)
    assert len(calls) == 9, "only the interrupted one is run twice"
    for index in (1, 0):
        execute.make(pilots(), train, plan.Kept(str(tmp_path / "b")), part=Shard(index, 2), step=step)
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / d / "pilots").iterdir()} for d in "ab")
    assert first == second


def test_missing_pilots_are_counted(tmp_path):
    kept = plan.Kept(str(tmp_path))
    kept.put(pilots()[0], {"metric": 0.5, "kind": "error"})
    with pytest.raises(BnError, match="7 of 8 pilots"):
        execute.records(pilots(), kept)
    (kept.folder / f"{pilots()[1].key}.json").write_text("{")
    with pytest.raises(BnError, match="no record"):
        execute.records(pilots(), kept)


def test_a_failed_pilot_is_kept_as_failed_where_that_is_allowed(tmp_path):
    def train(pilot):
        if pilot.n == 20:
            raise BnError("broken")
        return {"metric": 0.5, "kind": "loss"}

    kept = plan.Kept(str(tmp_path))
    execute.make(pilots(), train, kept, part=None, step=lambda count: None, allow_failed=True)
    found = execute.records(pilots(), kept)
    assert [r["metric"] for r in found[:2]] == [None, 0.5]
    assert {r["kind"] for r in found} == {"loss"}
    assert json.loads(json.dumps(found)) == found
