"""Scale distillation: exact gradients in pieces, never worse on held-out text, the same on any number of threads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bntools.core.errors import BnError
from bntools.core.training import distill

COUNT, LENGTH = 6, 24


@pytest.fixture
def student():
    """A small random model, its linears disturbed by 10 % a row, with the original's states."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, initializer_range=0.2, tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    windows = torch.randint(0, 97, (COUNT, LENGTH))
    known = distill.targets(model, windows, range(COUNT), lambda count: None)
    linears = [name for name, module in model.named_modules() if name.endswith("_proj")]
    with torch.no_grad():
        for name in linears:
            weight: Any = model.get_submodule(name).weight
            weight.mul_(1 + 0.1 * torch.randn(len(weight), 1)).add_(0.01 * torch.randn_like(weight))
    gains = [name for name, parameter in model.named_parameters() if parameter.ndim == 1]
    return distill.Student(model, linears, gains, windows, known, distill.logits_of(model))


def test_gradients_in_pieces_are_those_of_the_full_logits(student, monkeypatch):
    monkeypatch.setattr(distill, "_POSITIONS", 7)
    with student.hooked():
        total, found = student.gradients(0)
        log_s = student.model(student.windows[:1]).logits[0].log_softmax(-1)
        log_t = student.teacher(student.known[0]).log_softmax(-1)
        loss = torch.nn.functional.kl_div(log_s, log_t, log_target=True, reduction="sum")
        wanted = torch.autograd.grad(loss, student.parameters)
    assert total == pytest.approx(float(loss.detach()), rel=1e-5)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_training_brings_the_held_out_text_nearer_to_the_original(student):
    found = distill.train(student, distill.split(COUNT, 20, 0), 20, lambda count: None, rate=1e-2)
    assert found.end < 0.8 * found.start
    assert student.measure(found.state, distill.split(COUNT, 20, 0).held_out) == pytest.approx(found.end)


def test_a_start_that_training_only_spoils_is_returned(student):
    before = student.copy()
    found = distill.train(student, distill.split(COUNT, 8, 0), 8, lambda count: None, rate=3.0)
    assert found.end == found.start
    assert found.steps < 8
    for ours, theirs in zip(found.state, before, strict=True):
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_the_number_of_threads_changes_no_bit(student):
    start, found = student.copy(), []
    for threads in (1, 2):
        student.load(start)
        torch.set_num_threads(threads)
        found.append(distill.train(student, distill.split(COUNT, 3, 0), 3, lambda count: None))
    torch.set_num_threads(1)
    assert found[0].end == found[1].end
    for one, two in zip(found[0].state, found[1].state, strict=True):
        assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("octave", [16, 64])
def test_stored_exponents_are_the_trained_factors_within_half_a_step(octave):
    factors = {"layer": torch.linspace(0.5, 2.0, 300)}
    gains = {"norm": torch.tensor([0.1234567])}
    state, rows, _ = distill.rounded(distill.State(factors, factors, gains), octave, {"norm": torch.float16})
    off = (state.rows["layer"] / factors["layer"]).log2().abs()
    assert float(off.max()) <= 0.5 / octave + 1e-6
    torch.testing.assert_close(2.0 ** (rows["layer"] / octave), state.rows["layer"])
    assert state.gains["norm"].half().float().equal(state.gains["norm"])


def test_windows_held_out_are_a_tenth_and_never_trained_on():
    found = distill.split(64, 1000, 0)
    assert len(found.held_out) == 6
    assert sorted(found.train + found.held_out) == list(range(64))
    assert distill.split(64, 4, 0).train == found.train[:8]
    with pytest.raises(BnError, match="two calibration windows"):
        distill.split(1, 4, 0)
