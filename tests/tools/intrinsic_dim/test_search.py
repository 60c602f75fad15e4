"""The search on problems whose answer is known: it finds it, and wastes little."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from bntools.tools.intrinsic_dim.fit import aim
from bntools.tools.intrinsic_dim.report import summary
from bntools.tools.intrinsic_dim.runs import Job, Outcome, Run
from bntools.tools.intrinsic_dim.search import Plan, Search


class Toy:
    """Scores as a function of dimension, seed and learning rate; counts what is asked of it."""

    def __init__(self, size: int, dimension: float, best: float = 1.0, noise: float = 0.003) -> None:
        self.size, self.dimension, self.best, self.noise = size, dimension, best, noise
        self.asked: list[Job] = []

    def __call__(self, jobs) -> list[Run]:
        self.asked += jobs
        return [Run(job, self.outcome(job), job.key("toy")) for job in jobs]

    def outcome(self, job: Job) -> Outcome:
        dim = job.dim or self.size
        ideal = (1e-3 if job.dim is None else self.best * 1e-3) * math.sqrt(self.size / dim)
        reach = 1.0 if job.dim is None else 1 - 0.1 * (self.dimension / dim) ** 0.5
        loss = 0.02 * math.log2(job.lr / ideal) ** 2
        random = np.random.default_rng([job.seed, dim, round(1e6 * job.lr)])
        score, held = max(reach - loss, 0) + self.noise * random.normal(size=2)
        stopped = job.target is not None and held < job.target - 0.3
        return Outcome(
            score, held, 0.0, [(1.0, held)], 10, 0.1, stopped, 0.0, np.zeros(dim) if job.dim else None
        )


def plan(size: int, **given) -> Plan:
    return Plan(size, 1e-3, False, **given)


@pytest.mark.parametrize("dimension", [4, 60, 750, 6000, 150_000])
def test_the_dimension_is_found_wherever_it_lies(dimension):
    toy = Toy(200_000, dimension)
    found = Search(plan(200_000), toy)()
    assert found.interval.low <= 1.06 * dimension
    assert found.interval.high >= dimension / 1.06
    assert found.interval.value == pytest.approx(dimension, rel=0.12)
    assert found.interval.high <= 1.5 * found.interval.low
    assert len(toy.asked) < 75


@pytest.mark.parametrize("best", [0.05, 0.25, 16])
def test_a_learning_rate_far_from_the_guess_does_not_move_the_dimension(best):
    """Without its own search the number is an artefact of the learning rate."""
    found = Search(plan(200_000), Toy(200_000, 750, best))()
    assert found.interval.value == pytest.approx(750, rel=0.2)


def test_the_number_rests_on_cold_whole_runs_only():
    toy = Toy(200_000, 6000)
    search = Search(plan(200_000), toy)
    search()
    assert any(job.start for job in toy.asked)
    assert all(
        not run.job.start and run.job.target is None and run.job.share == 1 for run in search.counted()
    )
    cold = Toy(200_000, 6000)
    Search(plan(200_000, warm=False), cold)()
    assert not any(job.start for job in cold.asked)


def test_a_problem_that_one_number_solves_has_dimension_one():
    found = Search(plan(500), Toy(500, 1e-4))()
    assert found.interval.value == 1


def test_a_target_out_of_reach_is_said_to_be_out_of_reach():
    found = Search(plan(1000), Toy(1000, 1e9))()
    assert not found.reached
    assert found.interval.value is None
    assert found.interval.low == 1000


def test_a_list_of_dimensions_is_measured_and_nothing_else():
    toy = Toy(200_000, 750)
    found = Search(plan(200_000, dims=(300, 700, 1500)), toy)()
    assert {job.dim for job in toy.asked} == {None, 300, 700, 1500}
    assert found.curve.dims.tolist() == [300, 700, 1500]
    assert (found.curve.count == 3).all()
    assert 500 < found.interval.value < 1100


def test_given_learning_rates_are_the_only_ones():
    toy = Toy(200_000, 750)
    Search(plan(200_000, rates=(0.01, 0.03)), toy)()
    rates = {job.lr for job in toy.asked if job.phase in ("rate",)}
    assert rates == {0.01, 0.03}


def test_parts_of_a_list_ask_for_what_the_whole_asks_for():
    whole = Toy(200_000, 750)
    Search(plan(200_000, dims=(300, 700, 1500)), whole)()
    parts = [Toy(200_000, 750) for _ in range(3)]
    for index, toy in enumerate(parts):
        Search(plan(200_000, dims=(300, 700, 1500)), toy).part(index, 3)
    keys = [{job.key("toy") for job in toy.asked} for toy in parts]
    assert set.union(*keys) == {job.key("toy") for job in whole.asked}
    assert sum(map(len, keys)) == len(set.union(*keys))


def test_the_same_search_asks_the_same_questions_again():
    first, second = Toy(200_000, 750), Toy(200_000, 750)
    for toy in (first, second):
        Search(plan(200_000), toy)()
    assert first.asked == second.asked


def test_a_summary_names_the_key_after_the_threshold_and_lists_each_run_once():
    search = Search(plan(200_000, threshold=0.8), Toy(200_000, 750))
    report = summary(search(), search.plan)
    assert report["target"] == pytest.approx(aim(report["baseline"]["mean"], 0.8, None))
    assert set(report["d_int80"]) == {"value", "low", "high"}
    keys = [run["key"] for run in report["runs"]]
    assert len(keys) == len(set(keys))
    assert sum(run["phase"] == "confirm" for run in report["runs"]) == sum(c["runs"] for c in report["curve"])


class Unsure(Toy):
    """A task that is learned or not, by chance: as likely as not at the dimension, surely at twice that."""

    def outcome(self, job: Job) -> Outcome:
        random = np.random.default_rng([job.seed, job.dim or self.size])
        learned = job.dim is None or random.random() < job.dim / self.dimension / 2
        score = 1.0 if learned else 0.1
        return Outcome(score, score, 0.0, [(1.0, score)], 10, 0.1, False, 0.0, None)


@pytest.mark.parametrize("first", [0, 10, 20])
def test_an_interval_open_above_is_searched_beyond_or_said_to_be_open(first):
    search = Search(plan(500, seeds=(first, first + 1, first + 2)), Unsure(500, 8))
    found = search()
    interval, tried = found.interval, [c["dim"] for c in summary(found, search.plan)["curve"]]
    names = {warning["name"] for warning in summary(found, search.plan)["warnings"]}
    assert (interval.high is None) == ("open-above" in names)
    assert interval.high is not None or max(tried) >= 1.5 * interval.value


def test_a_bound_that_is_open_is_said_to_be_open_and_why():
    listed = Search(plan(500, dims=(300, 400)), Toy(500, 20))
    (warning,) = summary(listed(), listed.plan)["warnings"]
    assert warning["name"] == "open-below"
    assert "300" in warning["text"]
    beyond = Search(plan(500, dims=(2, 3), seeds=(0,)), Toy(500, 60))
    (warning,) = summary(beyond(), beyond.plan)["warnings"]
    assert warning["name"] == "not-reached"


class Harder(Toy):
    """Held-out data on which every score is lower by a half than on test data."""

    def outcome(self, job: Job) -> Outcome:
        out = super().outcome(job)
        held = out.validation - 0.5
        return Outcome(out.score, held, -0.5, out.curve, 10, 0.1, False, 0.0, out.point)


def test_a_share_of_the_way_is_taken_between_scores_on_the_same_data():
    spans = Plan(200_000, 1e-3, True)
    found = Search(spans, Harder(200_000, 750))()
    assert found.target == pytest.approx(0.9, abs=0.02)
    assert found.interval.value == pytest.approx(750, rel=0.15)


@pytest.mark.parametrize(
    ("score", "largest", "rows", "guesses"),
    [
        (0.496, 0.5, 500, True),
        (0.52, 0.5, 500, True),
        (0.9, 0.9, 1000, True),
        (0.11, 0.1, 2000, True),
        (0.1, 0.3, 400, True),
        (0.54, 0.5, 100_000, True),  # better than guessing, but nine tenths of it are not
        (0.9, 0.5, 200, False),
        (0.6, 0.5, 2000, False),
        (0.3, 0.1, 500, False),
    ],
)
def test_a_target_that_guessing_reaches_has_no_dimension(score, largest, rows, guesses):
    class Scaled(Toy):
        def outcome(self, job: Job) -> Outcome:
            out = super().outcome(job)
            return dataclasses.replace(out, score=score * out.score, validation=score * out.validation)

    search = Search(plan(10_000, dims=(100, 1000), guessing=(largest, rows)), Scaled(10_000, 200))
    report = summary(search(), search.plan)
    assert report["largest_class"] == largest
    assert (report["d_int90"] == {"value": None, "low": None, "high": None}) == guesses
    assert ("guessing" in {warning["name"] for warning in report["warnings"]}) == guesses
    assert not (report["reached"] and guesses)


class Flat(Toy):
    """Accuracies that stay at chance until the rate is nearly right, while the loss falls all the way there."""

    def outcome(self, job: Job) -> Outcome:
        dim = job.dim or self.size
        away = abs(math.log2(job.lr / (self.best * 1e-3 * math.sqrt(self.size / dim))))
        score = 0.8 if job.dim is None or away < 1.5 else 0.1
        return Outcome(score, score, 0.1, [(1.0, score)], 10, 0.1, False, None, None, 1 + away / 10)


@pytest.mark.parametrize("best", [1 / 200, 1 / 40, 1.0, 40, 500])
@pytest.mark.parametrize("guessing", [None, (0.1, 1000)])
def test_where_no_score_tells_rates_apart_the_loss_leads_to_the_right_one(best, guessing):
    """Li et al.'s toy: at d = 10 every rate near the guess scores as chance does, and .80 is reachable."""
    search = Search(plan(1000, dims=(10,), seeds=(0,), guessing=guessing), toy := Flat(1000, 10, best))
    search()
    assert max(run.outcome.score for run in search.counted()) == 0.8
    assert len(toy.asked) < 30


def test_of_equal_scores_the_lower_loss_is_taken():
    runs = [Run(Job(4, 0, lr), Outcome(0.5, 0.5, 0.1, [], 1, 0.1, loss=loss), "") for lr, loss in
            ((1.0, 0.9), (2.0, 0.8), (4.0, float("nan")), (8.0, 1.0))]  # fmt: skip
    assert Search(plan(100), lambda jobs: [])._best(runs).job.lr == 2.0
