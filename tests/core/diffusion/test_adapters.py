"""Adapters against the classes of the library, tiny and random: shapes, positions, parametrisation."""

from __future__ import annotations

import pytest
import torch
from support.diffusion import TINY, condition_for, tiny_transformer

from bntools.core.diffusion.adapters import ADAPTERS, adapter_for
from bntools.core.diffusion.adapters.preserving import Preserving
from bntools.core.diffusion.caches import CacheChoice, parse_cache
from bntools.core.diffusion.costs import BlockStack, forward_cost
from bntools.core.diffusion.transformer import Guidance, TransformerField
from bntools.core.errors import BnError

NAMES = sorted(TINY)
SCHEDULE = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}


def field_of(name: str, size: tuple[int, int] = (8, 8), guidance: Guidance | None = None) -> TransformerField:
    model = tiny_transformer(name)
    adapter = adapter_for({**model.config, "_class_name": name}, name)
    if isinstance(adapter, Preserving):
        adapter.schedule({**SCHEDULE, "prediction_type": "epsilon" if "PixArt" in name else "v_prediction"})
    shape = (adapter.channels, *((3,) if adapter.video else ()), *size)
    return TransformerField(
        name, model, adapter, shape=shape, condition=condition_for(name, 2),
        guidance=guidance or Guidance(),
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_transformer_has_a_velocity_at_every_resolution(name):
    field = field_of(name)
    for size in ((8, 8), (4, 4), (8, 4)):
        x = torch.randn(2, *field.shape[:-2], *size, generator=torch.Generator().manual_seed(0))
        v = field.velocity(x, 0.6, slice(0, 2))
        assert v.shape == x.shape
        assert torch.isfinite(v).all()
        assert float((v - field.velocity(x, 0.3, slice(0, 2))).abs().max()) > 0, "the level is an input"


@pytest.mark.parametrize("name", NAMES)
def test_samples_do_not_depend_on_their_batch(name):
    field = field_of(name)
    x = torch.randn(2, *field.shape, generator=torch.Generator().manual_seed(1))
    both = field.velocity(x, 0.5, slice(0, 2))
    alone = torch.cat([field.velocity(x[i : i + 1], 0.5, slice(i, i + 1)) for i in range(2)])
    assert torch.allclose(both, alone, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_tokens_unpack_to_what_was_packed(name):
    adapter = field_of(name).adapter
    shape = (adapter.channels, *((3,) if adapter.video else ()), 4, 8)
    x = torch.arange(2 * torch.tensor(shape).prod()).reshape(2, *shape).float()
    assert torch.equal(adapter.unpack(adapter.pack(x), shape), x)


def test_packing_is_that_of_the_librarys_pipelines():
    from diffusers import FluxPipeline, LTXPipeline

    x = torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(2))
    flux = field_of("FluxTransformer2DModel").adapter
    assert torch.equal(flux.pack(x), FluxPipeline._pack_latents(x, 2, 4, 6, 8))
    ids = flux.inputs(condition_for("FluxTransformer2DModel", 2), (2, 4, 6, 8), 0.5, 1.0)["img_ids"]
    assert torch.equal(ids, FluxPipeline._prepare_latent_image_ids(2, 3, 4, "cpu", torch.float32))
    video = torch.randn(2, 4, 3, 6, 8, generator=torch.Generator().manual_seed(3))
    ltx = field_of("LTXVideoTransformer3DModel").adapter
    assert torch.equal(ltx.pack(video), LTXPipeline._pack_latents(video, 1, 1))


def test_noise_and_v_predictions_become_the_same_velocity():
    """From x0 and eps directly: what a perfect model of either kind returns must give eps - x0."""
    generator = torch.Generator().manual_seed(4)
    x0, eps = torch.randn(1, 4, 4, 4, generator=generator), torch.randn(1, 4, 4, 4, generator=generator)
    for t in (0.1, 0.5, 0.9):
        norm = ((1 - t) ** 2 + t**2) ** 0.5
        for name, kind in (
            ("PixArtTransformer2DModel", "epsilon"),
            ("CogVideoXTransformer3DModel", "v_prediction"),
        ):
            adapter = ADAPTERS[name]({"in_channels": 4})
            assert isinstance(adapter, Preserving)
            adapter.schedule({**SCHEDULE, "prediction_type": kind})
            x = (1 - t) * x0 + t * eps
            output = eps if kind == "epsilon" else ((1 - t) * eps - t * x0) / norm
            assert torch.allclose(adapter.velocity(output, x, t), eps - x0, atol=1e-4)
            assert torch.allclose(adapter.scaled(x, t), x / norm)


def test_the_clock_of_a_preserving_schedule_is_the_librarys():
    from diffusers import DDPMScheduler

    adapter = ADAPTERS["PixArtTransformer2DModel"]({"in_channels": 4})
    assert isinstance(adapter, Preserving)
    clock = adapter.schedule(SCHEDULE)
    alphas = DDPMScheduler(**SCHEDULE).alphas_cumprod.double()
    for step in (0, 400, 999):
        t = float((1 - alphas[step]).sqrt() / ((1 - alphas[step]).sqrt() + alphas[step].sqrt()))
        assert float(adapter.step_of(t, 1)) == pytest.approx(step, abs=0.02)
    assert clock.start == pytest.approx(t, abs=1e-5)


def test_guidance_of_one_kind_of_prompt_alone_changes_nothing():
    name = "SD3Transformer2DModel"
    condition = condition_for(name, 2)
    x = torch.randn(2, *field_of(name).shape, generator=torch.Generator().manual_seed(5))
    plain = field_of(name).velocity(x, 0.5, slice(0, 2))
    same = field_of(name, guidance=Guidance(3.0, condition)).velocity(x, 0.5, slice(0, 2))
    other = field_of(name, guidance=Guidance(3.0, condition_for(name, 2, seed=9))).velocity(
        x, 0.5, slice(0, 2)
    )
    assert torch.allclose(plain, same, atol=1e-5)
    assert not torch.allclose(plain, other, atol=1e-3)


PAIR = ("SD3Transformer2DModel", "FluxTransformer2DModel")
CACHES = [(PAIR[1], "fbc:0.05"), *((name, cache) for name in PAIR for cache in ("taylor:2",))]


def test_a_cache_that_a_class_cannot_have_is_refused():
    with pytest.raises(BnError, match="last block"):
        field_of("SD3Transformer2DModel").use_cache(parse_cache("fbc:0.05"))


@pytest.mark.parametrize(("name", "cache"), CACHES)
def test_a_cache_is_forgotten_at_a_boundary(name, cache):
    """Another resolution neither fails nor sees features of the last one."""
    field, plain = field_of(name), field_of(name)
    field.use_cache(parse_cache(cache))
    generator = torch.Generator().manual_seed(6)
    for size in ((8, 8), (4, 4), (8, 8)):
        field.boundary()
        x = torch.randn(2, *field.shape[:-2], *size, generator=generator)
        first = field.velocity(x, 0.5, slice(0, 2))
        assert torch.allclose(first, plain.velocity(x, 0.5, slice(0, 2)), atol=1e-4), "nothing is cached yet"
        assert torch.isfinite(field.velocity(x, 0.4, slice(0, 2))).all()


def test_caches_are_parsed_and_refused():
    assert parse_cache("none") is None
    assert parse_cache("fbc") == CacheChoice("fbc", 0.05)
    for text in ("tea:1", "fbc:x", "taylor:2.5", "fbc:-1"):
        with pytest.raises(BnError, match="no cache"):
            parse_cache(text)


def test_costs_are_the_written_formulas():
    n, t, d = 100, 10, 64
    joint = forward_cost([BlockStack("double", 3, 4, 16)], n, t)
    assert joint.flops == 3 * 2 * (12 * d**2 * (n + t) + 2 * (n + t) ** 2 * d)
    assert joint.attention == 3 * 4 * (n + t) ** 2 * d
    cross = forward_cost([BlockStack("cross", 1, 4, 16)], n, t)
    assert cross.flops == 2 * (14 * d**2 * n + 2 * d**2 * t + 2 * n**2 * d + 2 * n * t * d)
    assert joint.moved == 3 * 4 * 4 * (n + t) * 16, "short sequences: inputs and outputs once"
    long = forward_cost([BlockStack("double", 1, 1, 64)], 1 << 16, 0)
    assert long.moved == pytest.approx((1 << 32) * 64**2 / (192 * 1024 / 2))


def test_what_no_adapter_knows_is_refused():
    with pytest.raises(BnError, match="no adapter for UNet2DModel"):
        adapter_for({"_class_name": "UNet2DModel"}, "m/")
    adapter = ADAPTERS["PixArtTransformer2DModel"]({"in_channels": 4})
    assert isinstance(adapter, Preserving)
    with pytest.raises(BnError, match="prediction type sample"):
        adapter.schedule({"prediction_type": "sample"})
    with pytest.raises(BnError, match="no multiple of 16"):
        adapter.shape((100, 128), 1)
    with pytest.raises(BnError, match=r"CogVideoX 1\.5"):
        adapter_for({"_class_name": "CogVideoXTransformer3DModel", "patch_size_t": 2}, "")
