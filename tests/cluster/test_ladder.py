"""What is believed of a task, from what a scheduler says and when: never waited for one that nobody knows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bntools.core.errors import BnError
from bntools.core.jobs import script
from bntools.core.jobs.ladder import FORGOTTEN, GRACE, SILENCE, Ladder, Sighting, _parse
from bntools.core.jobs.outcome import Ended


def judge(ladder, state, now, reason="None", account=None):
    queue = {"1_0": Sighting(state, reason)} if state else {}
    return ladder.judge(["1_0"], queue, account or {}, now).get("1_0")


@pytest.mark.parametrize(
    "state", ["PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "REQUEUED"]
)
def test_a_task_that_the_scheduler_still_has_is_waited_for(state):
    ladder = Ladder()
    assert all(judge(ladder, state, now) is None for now in (0, 100, 1e5))


@pytest.mark.parametrize(
    "state", ["FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "BOOT_FAIL"]
)
def test_a_task_that_has_ended_is_reported_at_once(state):
    assert judge(Ladder(), state, 0).reason == state


def test_running_out_of_memory_is_told_apart():
    assert judge(Ladder(), "OUT_OF_MEMORY", 0).starved
    assert Ended(137, "").starved
    assert not Ended(1, "FAILED").starved


def test_a_task_that_nobody_knows_is_lost_at_the_second_look():
    ladder = Ladder()
    assert judge(ladder, None, 0) is None
    assert judge(ladder, None, FORGOTTEN - 1) is None
    assert "forgot" in judge(ladder, None, FORGOTTEN).reason


def test_a_task_that_comes_back_is_not_lost():
    ladder = Ladder()
    judge(ladder, None, 0)
    assert judge(ladder, "RUNNING", 20) is None
    assert judge(ladder, None, 40) is None


def test_accounting_knows_what_the_queue_has_forgotten():
    assert judge(Ladder(), None, 0, account={"1_0": Sighting("TIMEOUT", "")}).reason == "TIMEOUT"


def test_a_part_may_take_a_while_to_be_seen_after_its_task():
    ladder = Ladder()
    assert judge(ladder, "COMPLETED", 0) is None
    assert judge(ladder, "COMPLETED", GRACE).code == 0


def test_a_silent_scheduler_is_no_verdict_for_an_hour():
    ladder = Ladder()
    assert not ladder.judge(["1_0"], None, {}, 0)
    assert not ladder.judge(["1_0"], None, {}, SILENCE)
    assert ladder.judge(["1_0"], None, {}, SILENCE + 1)


def test_a_task_held_after_failed_launches_has_ended():
    assert judge(Ladder(), "PENDING", 0, "launch failed requeued held") is not None


def test_lines_of_squeue_and_sacct_are_read():
    text = "12_3|RUNNING|None\n12_4|CANCELLED by 0|\n\nnonsense\n12_5|PENDING|BeginTime\n"
    assert _parse(text) == {
        "12_3": Sighting("RUNNING", "None"), "12_4": Sighting("CANCELLED", ""), "12_5": Sighting("PENDING", "BeginTime")
    }  # fmt: skip


@given(st.sets(st.integers(0, 60)))
def test_ranges_name_every_index_once(indices):
    named = []
    for part in filter(None, script.ranges(sorted(indices)).split(",")):
        first, _, last = part.partition("-")
        named += range(int(first), int(last or first) + 1)
    assert named == sorted(indices)


@pytest.mark.parametrize("word", ["array=0-3", "--dependency=x", "=3", "output=x"])
def test_options_of_sbatch_that_are_ours_are_refused(word):
    with pytest.raises(BnError) as error:
        script.check_sbatch([word])
    assert error.value.code == 2
