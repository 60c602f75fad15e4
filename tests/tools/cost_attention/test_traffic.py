"""The closed forms of attention's traffic against a cache that is simulated access by access."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bntools.core.errors import BnError
from bntools.tools.cost_attention import caches, traffic
from bntools.tools.cost_attention.settings import Problem, parse_memory
from bntools.tools.cost_attention.simulation import simulate

SHAPES = [
    (64, 8, 512),
    (128, 8, 1024),
    (60, 8, 300),
    (48, 16, 40),
    (64, 32, 80),
    (96, 16, 1500),
    (40, 16, 143),
    (32, 16, 108),
]


def plans(p: Problem) -> list[traffic.Plan]:
    both = traffic.forward_plans(p)
    return both + (traffic.backward_plans(p) if p.memory > 10 * p.width else [])


def lru_reference(addresses, writes, room):
    """The definition: least recently used leaves; a first write fetches nothing; what was written goes back."""
    held, known, moved = OrderedDict(), set(), 0
    for x, write in zip(addresses.tolist(), writes.tolist(), strict=True):
        dirty = held.pop(x, None)
        if dirty is None:
            if len(held) == room:
                moved += held.popitem(last=False)[1]
            moved += x in known or not write
            known.add(x)
        held[x] = bool(dirty) or write
    return moved + sum(held.values())


def ideal_reference(addresses, writes, room):
    """Belady: leaves whose next use is last."""
    held, known, moved = {}, set(), 0
    trace = addresses.tolist()
    for at, (x, write) in enumerate(zip(trace, writes.tolist(), strict=True)):
        if x not in held:
            if len(held) == room:
                # lines without another use: the larger address first, as in `next_uses`
                out = max(
                    held, key=lambda y, at=at: trace.index(y, at) if y in trace[at:] else len(trace) + y
                )
                moved += held.pop(out)
            moved += x in known or not write
            known.add(x)
        held[x] = held.get(x, False) or write
    return moved + sum(held.values())


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=60), st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_caches_do_what_their_definitions_say(trace, room):
    addresses, writes = np.array([x for x, _ in trace]), np.array([w for _, w in trace])
    assert caches.queue(addresses, writes, 10, room, True) == lru_reference(addresses, writes, room)
    assert caches.ideal(addresses, writes, 10, room) == ideal_reference(addresses, writes, room)
    read_first = {x: write for x, write in reversed(trace)}  # noqa: C416 - the first access stays
    fetched = sum(not write for write in read_first.values())
    assert caches.queue(addresses, writes, 10, 10, False) == fetched + len({x for x, write in trace if write})


@pytest.mark.parametrize(("length", "width", "memory"), SHAPES)
def test_a_planned_tiling_moves_to_the_element_what_its_formula_says(length, width, memory):
    p = Problem(length, length, width, memory)
    for plan in plans(p):
        if plan.name == "spilled" and (length % plan.tile.rows or width % plan.tile.rows):
            continue  # ragged tiles let LRU keep a little more than planned
        assert simulate(p, plan, "lru") == plan.moved, plan.name


@pytest.mark.parametrize(("length", "width", "memory"), SHAPES)
def test_no_cache_moves_more_than_a_formula_also_where_tiles_are_ragged_or_masked(length, width, memory):
    for causal in (False, True):
        p = Problem(length, length, width, memory, causal)
        for plan in plans(p):
            lru, ideal = (simulate(p, plan, policy) for policy in ("lru", "ideal"))
            assert ideal <= lru <= plan.moved
            assert ideal >= p.compulsory or causal


@pytest.mark.parametrize(("length", "width", "memory"), [(64, 8, 512), (128, 8, 1024), (96, 16, 1500)])
def test_the_ideal_cache_gains_under_three_percent_on_the_order_that_is_chosen(length, width, memory):
    p = Problem(length, length, width, memory)
    plan = traffic.forward_plans(p)[0]
    assert simulate(p, plan, "ideal") > 0.97 * plan.moved


def test_masked_rows_are_exact_as_well():
    for length, width, memory in SHAPES:
        p = Problem(length, length, width, memory, causal=True)
        plan = traffic.forward_plans(p)[0]
        if plan.name == "rows":
            assert simulate(p, plan, "lru") == plan.moved


def test_grouped_heads_share_their_keys():
    one = Problem(64, 64, 8, 512, causal=True)
    four = Problem(256, 64, 8, 512, causal=True, group=4)
    plan = traffic.forward_plans(four)[0]
    assert simulate(four, plan, "lru") == plan.moved
    assert plan.moved < 4 * traffic.forward_plans(one)[0].moved
    assert four.pairs == 4 * one.pairs


@given(st.integers(8, 300), st.integers(1, 40), st.integers(5, 6000))
@settings(max_examples=60, deadline=None)
def test_more_memory_never_moves_more_and_nothing_moves_less_than_compulsory(length, width, memory):
    def best(size):
        try:
            return min(plan.moved for plan in traffic.forward_plans(Problem(length, length, width, size)))
        except BnError:
            return None

    small, large = best(memory), best(memory + 50)
    assert small is None or small >= large
    assert large is None or large >= 4 * length * width


def test_flash_attention_2_never_moves_more_than_1():
    for length, width, memory in SHAPES:
        moved = {
            plan.name: plan.moved for plan in traffic.forward_plans(Problem(length, length, width, memory))
        }
        assert moved.get("rows", 0) <= moved.get("columns", 0)


def test_below_half_of_d2_writing_the_scores_is_cheaper_and_above_it_is_not():
    for width in (64, 128):
        for share, winner in ((1 / 8, "spilled"), (0.4, "spilled"), (0.7, "rows"), (4, "rows")):
            p = Problem(4096, 4096, width, int(share * width**2))
            assert min(traffic.forward_plans(p), key=lambda plan: plan.moved).name == winner
    eighth = {x.name: x.moved for x in traffic.forward_plans(Problem(4096, 4096, 128, 128 * 16))}
    assert eighth["rows"] / eighth["spilled"] == pytest.approx(3.28, abs=0.01)


def test_a_granule_makes_whole_tiles_and_stages_take_room():
    p = Problem(4096, 4096, 128, 116_736, granule=16)
    tile = traffic.forward_plans(p)[0].tile
    assert tile.rows % 16 == tile.columns % 16 == 0
    staged = Problem(4096, 4096, 128, 40_000, granule=16, stages=4)
    assert traffic.forward_plans(staged)[0].moved > traffic.forward_plans(replace(staged, stages=1))[0].moved


def test_too_little_memory_names_the_least():
    with pytest.raises(BnError, match="3 elements of fast memory hold no tile") as caught:
        traffic.forward_plans(Problem(64, 64, 8, 3))
    assert (caught.value.code, "5el" in caught.value.hint) == (3, True)
    with pytest.raises(BnError) as caught:
        traffic.backward_plans(Problem(64, 64, 8, 40))
    assert caught.value.code == 3


@pytest.mark.parametrize(("text", "count"), [("228KiB", 116_736), ("512el", 512), ("1KB", 500)])
def test_sizes_of_fast_memory_have_units(text, count):
    assert parse_memory(text, 2) == count


@pytest.mark.parametrize("text", ["512", "12 parsecs", "-4KiB", "0el", ""])
def test_a_size_without_a_unit_is_refused(text):
    with pytest.raises(BnError) as caught:
        parse_memory(text, 2)
    assert caught.value.code == 2


def test_a_simulation_that_is_too_large_says_how_large():
    p = Problem(20_000, 20_000, 64, 5000)
    with pytest.raises(BnError, match="accesses, more than 50,000,000") as caught:
        simulate(p, traffic.forward_plans(p)[0], "lru")
    assert caught.value.code == 2


def test_few_queries_read_the_keys_once():
    p = Problem(4, 8192, 128, 100_000, group=4)
    assert traffic.split_keys(p, 1).moved == 2 * 8192 * 128 + 2 * 4 * 128
    assert traffic.split_keys(p, 8).moved - traffic.split_keys(p, 1).moved == 7 * 4 * 128 + 16 * 4 * 130
