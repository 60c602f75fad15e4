"""Work done ahead: every result under its name, an error where the result is asked for, the interpreter as it was."""

from __future__ import annotations

import sys

import pytest

from bntools.core.system.threads import ahead, single_threaded


def test_what_is_made_ahead_is_given_by_name_in_any_order():
    interval = sys.getswitchinterval()
    with ahead(str.upper, ["a", "b", "c"]) as made:
        assert [made(name) for name in "cab"] == ["C", "A", "B"]
    assert sys.getswitchinterval() == interval


def test_what_is_asked_for_twice_is_made_again():
    with ahead(str.upper, ["a"]) as made:
        assert [made("a"), made("a")] == ["A", "A"]


def test_an_error_comes_out_where_the_result_is_asked_for():
    interval = sys.getswitchinterval()
    with pytest.raises(ZeroDivisionError), ahead(lambda name: 1 // 0, ["a"]) as made:
        made("a")
    assert sys.getswitchinterval() == interval


def test_one_context_inside_another_has_as_many_workers():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with single_threaded() as (_, outer), single_threaded() as (pool, inner):
            assert (outer, inner) == (3, 3)
            assert list(pool.map(lambda _: torch.get_num_threads(), range(3))) == [1, 1, 1]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
