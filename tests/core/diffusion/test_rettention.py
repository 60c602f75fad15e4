"""Sparse attention inside transformers of the library, whose own processors keep everything else."""

from __future__ import annotations

import pytest
import torch

from bntools.core.diffusion.rettention import (
    SparseAttention,
    SparseChoice,
    attention_processor,
    parse_attention,
)
from bntools.core.errors import BnError

diffusers = pytest.importorskip("diffusers")


def sd3():
    config = {"sample_size": 32, "patch_size": 2, "in_channels": 4, "out_channels": 4, "num_layers": 2,
              "attention_head_dim": 8, "num_attention_heads": 2, "joint_attention_dim": 16,
              "caption_projection_dim": 16, "pooled_projection_dim": 16, "pos_embed_max_size": 32}  # fmt: skip
    inputs = {"encoder_hidden_states": torch.ones(1, 5, 16), "pooled_projections": torch.ones(1, 16)}
    return diffusers.SD3Transformer2DModel(**config), inputs, (4, 32, 32)


def pixart():
    config = {"sample_size": 32, "patch_size": 2, "in_channels": 4, "out_channels": 8, "num_layers": 2,
              "attention_head_dim": 8, "num_attention_heads": 2, "cross_attention_dim": 16,
              "caption_channels": 12, "norm_type": "ada_norm_single"}  # fmt: skip
    inputs = {"encoder_hidden_states": torch.ones(1, 5, 12),
              "added_cond_kwargs": {"resolution": None, "aspect_ratio": None}}  # fmt: skip
    return diffusers.PixArtTransformer2DModel(**config), inputs, (4, 32, 32)


def cogvideo():
    config = {"num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4, "out_channels": 4,
              "time_embed_dim": 8, "text_embed_dim": 12, "num_layers": 2, "sample_width": 16, "sample_height": 16,
              "sample_frames": 9, "patch_size": 2, "max_text_seq_length": 5}  # fmt: skip
    inputs = {"encoder_hidden_states": torch.ones(1, 5, 12)}
    return diffusers.CogVideoXTransformer3DModel(**config), inputs, (3, 4, 16, 16)


@pytest.fixture(scope="module", params=[sd3, pixart, cogvideo])
def setting(request):
    """A transformer, what it returns over 12 steps of a slow motion, and a function that runs them."""
    torch.manual_seed(0)
    model, inputs, shape = request.param()
    model.eval()
    x, motion = torch.randn(1, *shape), torch.randn(1, *shape)

    @torch.no_grad()
    def steps() -> list[torch.Tensor]:
        return [
            model(
                hidden_states=x + 0.02 * i * motion,
                timestep=torch.tensor([900.0 - i]),
                **inputs,
                return_dict=False,
            )[0]
            for i in range(12)
        ]

    return model, steps(), steps


def errors(setting, choice) -> list[float]:
    model, reference, steps = setting
    sparse = SparseAttention(model, choice)
    try:
        return [float((a - b).norm() / b.norm()) for a, b in zip(steps(), reference, strict=True)]
    finally:
        sparse.remove()


def test_a_full_mask_is_the_library_s_own_attention(setting):
    assert max(errors(setting, SparseChoice(sparsity=0.0))) < 1e-5


def test_full_steps_are_exact_and_others_under_half_of_the_plain_mask_s_error(setting):
    cached, plain = (errors(setting, SparseChoice(kind, 0.8)) for kind in ("rettention", "sparse"))
    for step, error in enumerate(cached):
        if step <= 5 or step == 10:
            assert error < 1e-5
        else:
            assert 1e-5 < error < 0.5 * plain[step]


def test_removing_it_leaves_the_transformer_as_it_was(setting):
    _model, reference, steps = setting
    errors(setting, SparseChoice())
    assert all(torch.equal(a, b) for a, b in zip(steps(), reference, strict=True))


def test_passes_with_and_without_the_prompt_keep_statistics_of_their_own(setting):
    model, _reference, steps = setting
    sparse = SparseAttention(model, SparseChoice(sparsity=0.8))
    with sparse.context("uncond"):
        steps()
    first = steps()
    sparse.reset()
    again = steps()
    sparse.remove()
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_another_size_begins_anew():
    q, k, v = torch.randn(3, 1, 2, 128, 8).unbind()
    layer = attention_processor("rettention", None, sparsity=0.7, warmup=1, every=100)
    layer.attend(q, k, v, 0)
    small = [x[:, :, :64] for x in (q, k, v)]
    whole = torch.nn.functional.scaled_dot_product_attention(*small)
    assert torch.allclose(layer.attend(*small, 0), whole, atol=1e-5)
    assert layer.states["cond"].steps == 1


def test_other_transformers_are_refused():
    with pytest.raises(BnError) as caught:
        SparseAttention(torch.nn.Linear(1, 1), SparseChoice())
    assert caught.value.code == 2


def test_attention_is_read():
    assert parse_attention("dense") is None
    assert parse_attention("rettention") == SparseChoice("rettention", 0.9)
    assert parse_attention("sparse:0.5") == SparseChoice("sparse", 0.5)


@pytest.mark.parametrize("text", ["rettention:1", "rettention:x", "fast", "dense:0.5", "sparse:-1", ""])
def test_attention_that_does_not_exist_is_refused(text):
    with pytest.raises(BnError) as caught:
        parse_attention(text)
    assert caught.value.code == 2
    assert caught.value.hint or "none of" in caught.value.what
