"""Schedules, solvers, transitions and the loop, on Gaussian fields whose answers are known."""

from __future__ import annotations

import math

import pytest
import torch

from bntools.core.diffusion.field import Clock, power_law
from bntools.core.diffusion.gaussian import GaussianField
from bntools.core.errors import BnError
from bntools.kernels.spectral.cosine import dct2
from bntools.tools.sample_bottleneck import plan
from bntools.tools.sample_bottleneck.settings import (
    PRESETS,
    Settings,
    StageWords,
    parse_numbers,
    parse_stages,
)
from bntools.tools.sample_bottleneck.stages.exact import exactness
from bntools.tools.sample_bottleneck.stages.sampler import sample
from bntools.tools.sample_bottleneck.stages.schedule import build_schedule, raised_level, transition_level
from bntools.tools.sample_bottleneck.stages.solvers import evaluations
from bntools.tools.sample_bottleneck.stages.transitions import resized


def field_of(size: tuple[int, int] = (8, 8), beta: float = 2.0) -> GaussianField:
    return GaussianField("g", (1, *size), power_law(size, beta, 0.25), Clock(3.0))


def three(steps: int = 40, **more: object) -> Settings:
    words = (StageWords(steps, 1.0), StageWords(steps, 0.5), StageWords(steps, 1.0))
    return Settings(**{"stages": words, "bounds": (1.0, 0.8, 0.5, 0.0), "solver": "heun", **more})  # type: ignore[arg-type]


def exact(settings: Settings, field: GaussianField) -> dict[str, float]:
    return exactness(field, build_schedule(settings, field), settings)


def test_the_kept_band_is_exact_and_the_whole_field_with_a_known_spectrum():
    field = field_of()
    moved = exact(three(100, high="wiener"), field)
    assert moved["band"] < 1e-3
    assert moved["kl"] < 5e-5
    waited = exact(three(100), field)
    assert waited["band"] < 1e-3
    assert waited["kl"] > moved["kl"], "what waits misses the signal of its time"


def test_sizes_that_are_not_halves_are_exact_too():
    field = field_of((9, 6))
    settings = three(stages=parse_stages(f"40@1,40@{2 / 3:.12f},40@1"), high="wiener")
    assert exact(settings, field)["kl"] < 5e-5


def test_going_down_twice_comes_back_through_both_sizes():
    field = field_of()
    words = parse_stages("30@1,30@0.25,30@0.5,30@1")
    settings = three(stages=words, bounds=(1.0, 0.9, 0.7, 0.5, 0.0), high="wiener")
    assert exact(settings, field)["kl"] < 5e-5
    start_low = three(stages=parse_stages("30@0.25,30@0.5,30@1"), bounds=(1.0, 0.7, 0.5, 0.0), high="wiener")
    assert exact(start_low, field)["kl"] < 5e-5


def test_the_papers_way_loses_variance_where_the_exact_way_does_not():
    """With steps so fine that they do not matter: kernels of images leave percents in the band, the band nothing."""
    field = field_of()
    paper = Settings(
        "bottleneck", stages=parse_stages("40@1,40@0.5,40@1"), shifts=(3.0, 3.0, 3.0), solver="heun"
    )
    repeated = Settings(
        method="ralu", stages=parse_stages("40@0.5,40@1"), bounds=(1.0, 0.5, 0.0), solver="heun"
    )
    ours = exact(three(high="wiener"), field)
    assert exact(paper, field)["band"] > 0.01 > 3 * ours["band"]
    assert exact(repeated, field)["kl"] > ours["kl"]


def test_a_fresh_high_band_is_another_sample_and_a_retained_one_nearly_the_same():
    field = field_of()
    settings = Settings(full_steps=60)
    full = sample(field, build_schedule(Settings("full", full_steps=60), field), settings, count=8).x

    def gap(high: str) -> float:
        chosen = three(20, high=high, solver="euler")
        x = sample(field, build_schedule(chosen, field), chosen, count=8).x
        return float((x - full).norm() / full.norm())

    assert gap("retain") < gap("fresh") / 2


def test_samples_are_the_same_in_any_batch_and_transitions_are_healthy():
    field = field_of()
    one, all_at_once = three(4, batch=1, high="fresh"), three(4, batch=64, high="fresh")
    schedule = build_schedule(one, field)
    a, b = (sample(field, schedule, settings, count=6) for settings in (one, all_at_once))
    assert torch.allclose(a.x, b.x, atol=1e-6)
    many = sample(field, schedule, all_at_once, count=100)
    assert all(each["healthy"] for each in many.transitions)
    assert [stage["nfe"] for stage in many.stages] == [8, 8, 7]


def test_a_transition_that_blurs_is_told():
    """Repeating points without the noise they lack leaves too much of the mean square, or too little."""
    field = field_of((16, 16))
    settings = Settings(method="ralu", stages=parse_stages("6@0.5,6@1"), bounds=(1.0, 0.5, 0.0))
    schedule = build_schedule(settings, field)
    wrong = schedule.stages[1]._replace(times=tuple(0.5 * t for t in schedule.stages[1].times))
    bad = schedule._replace(stages=(schedule.stages[0], wrong))
    assert sample(field, schedule, settings, count=60).transitions[0]["healthy"]
    assert not sample(field, bad, settings, count=60).transitions[0]["healthy"]


def test_a_number_that_is_not_finite_names_the_step():
    class Broken(GaussianField):
        def velocity(self, x: torch.Tensor, t: float, rows: slice) -> torch.Tensor:
            v = super().velocity(x, t, rows)
            return v * math.nan if t < 0.6 else v

    field = field_of()
    broken = Broken("b", field.shape, field.data_spectrum(), field.clock)
    settings = three(2, solver="euler")
    with pytest.raises(BnError, match="after step 2 of stage 2") as caught:
        sample(broken, build_schedule(settings, broken), settings, count=2)
    assert caught.value.code == 3


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), ("ab2", 2)])
def test_solvers_have_their_order(solver, order):
    """Halving steps divides the error of variances by 2 to the order, within a third."""
    field = field_of((4, 4))

    def error(steps: int) -> float:
        settings = Settings("full", full_steps=steps, solver=solver, bounds=None)
        x = sample(field, build_schedule(settings, field), settings, count=4).x
        fine = Settings("full", full_steps=1600, solver="heun")
        return float((x - sample(field, build_schedule(fine, field), fine, count=4).x).norm())

    assert error(40) / error(80) == pytest.approx(2**order, rel=1 / 3)


def test_levels_of_the_paper_are_those_of_its_re_implementation():
    field = field_of()
    first = build_schedule(Settings("bottleneck", stages=PRESETS["flux-paper"].stages), field).stages
    assert [round(t, 3) for t in first[0].times] == [1.0, 0.964, 0.9, 0.75, 0.0]
    assert [round(stage.times[-2], 2) for stage in first[1:]] == [0.16, 0.14]
    grid = build_schedule(
        Settings("bottleneck", stages=PRESETS["flux-paper"].stages, space="grid"), field
    ).stages
    assert [round(stage.times[-2], 2) for stage in grid[1:]] == [0.28, 0.42]


def test_ralus_level_fits_its_equations():
    t, points = 0.6, 4
    s = raised_level(t, None, points)
    a = (1 - s) / (1 - t)
    assert a**2 * t**2 == pytest.approx(s**2 / points), "repeated noise is what block noise lacks"


def test_the_transition_rule_is_the_signal_that_is_missing():
    spectrum = field_of().data_spectrum()
    t = transition_level(spectrum, (8, 8), (4, 4), 0.1)
    above = spectrum.variance[0].clone()
    above[:4, :4] = 0
    assert (1 - t) ** 2 * float(above.max()) == pytest.approx(0.1 * t**2)


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic", "nearest", "area", "lanczos3", "dct"])
def test_every_kernel_keeps_a_constant_both_ways(kernel):
    flat = torch.full((1, 2, 8, 8), 0.3)
    for size in ((4, 4), (12, 10)):
        assert torch.allclose(resized(flat, size, kernel), torch.full((1, 2, *size), 0.3), atol=1e-5)


def test_a_target_is_met_and_the_choice_is_better_than_few_steps():
    field = field_of((16, 16))
    settings = Settings(full_steps=16)
    price = field.cost((8, 8)).flops / field.cost((16, 16)).flops
    solved = plan.solve(field, settings, 2.5, low=0.5, cost=price)
    schedule = build_schedule(solved, field)
    spent = plan.flops(schedule, field, "euler") / field.cost((16, 16)).flops
    assert 16 / spent >= 2.5
    few = build_schedule(Settings("full", full_steps=plan.equal_steps(spent, "euler")), field)
    assert plan.predicted_error(schedule, field) < plan.predicted_error(few, field)
    with pytest.raises(BnError, match="leaves"):
        plan.solve(field, settings, 50, low=0.5, cost=price)


def test_the_predicted_error_is_what_happens():
    field = field_of()
    settings = Settings(stages=parse_stages("2@1,5@0.5,3@1"))
    schedule = build_schedule(settings, field)
    response = []
    for index in range(64):
        noise = torch.zeros(1, 1, 8, 8)
        noise.reshape(-1)[index] = 1.0
        response.append(
            sample(field, schedule, settings, count=1, source=lambda *_, noise=noise: noise)
            .x.reshape(-1)
            .double()
        )
    linear = torch.stack(response)
    basis = dct2(torch.eye(64, dtype=torch.float64).reshape(64, 8, 8)).reshape(64, 64)
    gains = (basis.T @ linear @ basis).diagonal().abs()
    s = field.data_spectrum().variance[0].reshape(-1)
    assert plan.predicted_error(schedule, field) == pytest.approx(
        float(((gains - s.sqrt()) ** 2).sum() / s.sum()), rel=1e-3
    )


def test_words_are_parsed_and_refused():
    assert parse_stages("1@1,10@0.5,3@1") == (StageWords(1, 1), StageWords(10, 0.5), StageWords(3, 1))
    assert parse_numbers("--sigmas", "1:.95:.6:0") == (1, 0.95, 0.6, 0)
    for text in ("", "0@1", "3@2", "x@1", "3@0.5"):
        with pytest.raises(BnError):
            parse_stages(text)
    for wrong in (
        {"bounds": (1.0, 0.5)},
        {"bounds": (1.0, 0.5, 0.6, 0.0)},
        {"method": "naive"},
        {"strengths": (1.0, 2.0, 0.5)},
    ):
        with pytest.raises(BnError):
            Settings(**wrong)  # type: ignore[arg-type]
    assert evaluations("heun", (1.0, 0.5, 0.0)) == 3


def test_scales_that_do_not_divide_are_refused():
    field = field_of((9, 9))
    with pytest.raises(BnError, match=r"4\.5"):
        build_schedule(Settings(), field)
    with pytest.raises(BnError, match="only goes upwards"):
        build_schedule(Settings(method="ralu", stages=parse_stages("1@1,2@0.5,1@1")), field_of())
