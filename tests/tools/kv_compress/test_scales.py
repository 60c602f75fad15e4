"""ScaleKV: roles and budgets from attention, and what they cost on the embedded next-scale model."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bntools import cli
from bntools.tools.kv_compress import scale_budgets

MAPS = [1, 4, 9, 16]
map_of = np.repeat(np.arange(4), MAPS)


def mass_of(own: list[float]) -> np.ndarray:
    """Attention [layers, scales, tokens]: each layer gives its own map a share, the history the rest, alike."""
    mass = np.zeros((len(own), 4, len(map_of)))
    for layer, share in enumerate(own):
        mass[layer, 0, 0] = 1
        for scale in range(1, 4):
            mass[layer, scale, map_of == scale] = share / MAPS[scale]
            mass[layer, scale, map_of < scale] = (1 - share) / (map_of < scale).sum()
    return mass


def test_a_layer_that_looks_at_both_has_the_largest_index():
    index = scale_budgets.attention_index(mass_of([0.02, 0.5, 0.98]), map_of, 100)
    assert np.allclose(index[:, 1:], np.array([0.02 * 0.98, 0.25, 0.98 * 0.02])[:, None])
    assert not index[:, 0].any()


def test_budgets_sum_to_the_uniform_ones_and_none_is_over_what_exists():
    rng = np.random.default_rng(0)
    for budget in (0.1, 0.25, 0.5, 0.9, 1.0):
        halves = mass_of(list(rng.random(6)))
        plan = scale_budgets.plan_budgets((halves, halves), map_of, budget, strict=True)
        history = np.array([(map_of < scale).sum() for scale in range(4)])
        assert plan.drafter.sum() == 6
        assert plan.tokens.sum(0).tolist() == [round(budget * int(n) * 6) for n in history]
        assert (plan.tokens <= history).all()
        assert (plan.tokens >= 0).all()


def test_layers_that_differ_by_nothing_have_no_roles():
    same = mass_of([0.5] * 4)
    plan = scale_budgets.plan_budgets((same, same), map_of, 0.25)
    assert not plan.roles
    assert not plan.drafter.any()
    assert (plan.tokens == plan.tokens[:1]).all() or np.ptp(plan.tokens, axis=0).max() <= 1
    assert scale_budgets.plan_budgets((same, same), map_of, 0.25, strict=True).drafter.any()


def test_what_one_cannot_take_the_others_get():
    assert scale_budgets.shared_out(20, np.array([100.0, 1.0, 1.0]), 10).tolist() == [10, 5, 5]
    assert scale_budgets.shared_out(99, np.ones(3), 10).tolist() == [10, 10, 10]


def test_budgets_are_planned_from_statistics_alone(tmp_path, capsys):
    path = tmp_path / "attention.safetensors"
    save_file({"map": torch.tensor(map_of, dtype=torch.int32),
               "mass": torch.tensor(mass_of([0.1, 0.3, 0.5, 0.9]), dtype=torch.float32)}, path)  # fmt: skip
    words = ["kv-compress", "var:", "--method", "scalekv", "--attention", str(path), "--json"]
    assert cli.run(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["roles"]
    assert np.array(report["tokens"]).shape == (4, 4)
    save_file({"map": torch.zeros(3, dtype=torch.int32)}, path)
    assert cli.run(words) == 3


def test_other_methods_are_not_for_next_scale_models(capsys):
    assert cli.run(["kv-compress", "var:", "--method", "rate", "--bits", "2"]) == 2
    assert "scalekv" in capsys.readouterr().err


@pytest.mark.slow
def test_every_token_in_few_bits_beats_a_few_tokens_whole(capsys, tmp_path):
    pytest.importorskip("bntools.core.diffusion.next_scale.model")
    target = tmp_path / "scales.json"
    assert (
        cli.run(
            ["kv-compress", "var:", "--method", "scalekv", "--budget", "0.25", "--json", "-o", str(target)]
        )
        == 0
    )
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads(target.read_text())
    assert report["rate_bits_per_value"] < 4.1
    assert report["ratio"]["rate"] < 0.5
    assert report["kl"]["uniform"]["mean"] > 0


@pytest.mark.parametrize(
    "words", [("--calib", "x.txt"), ("--context", "512"), ("--max-kl", "0.1"), ("--text", "x.txt")]
)
def test_options_of_text_are_refused_for_next_scale_models(words, capsys):
    assert cli.run(["kv-compress", "var:", "--method", "scalekv", "--budget", "0.25", *words]) == 2
    assert f"{words[0]} is for language models" in capsys.readouterr().err
