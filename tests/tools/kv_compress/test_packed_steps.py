"""Steps of one token that are answered from packed rows say what a decoded cache says."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from bntools.core.errors import BnError
from bntools.core.methods.kv.cache import PlannedCache
from bntools.core.model.open import open_model
from bntools.core.text.documents import default_text
from bntools.core.text.tokens import open_tokenizer
from bntools.tools.kv_compress.run import make_plan
from bntools.tools.kv_compress.settings import Settings

FIXED = Settings(bits=3, context=128, calib_tokens=256, tokens=0.0, code="fixed", exact="0.02")
ROUNDING = 5e-3
"""Of logits of up to 25: exact tokens are float16, whose rounding (5e-4 of a value) float32 tips now and then."""
FIRST = 5e-4
"""Of a first step, whose tokens are the same: float32 (1.2e-7 of 25), some 160 roundings one behind the other."""


@pytest.fixture(scope="module")
def world():
    """The embedded model, its plan with the code `fixed`, and ids of a text."""
    source = open_model("default:")
    tokenizer = open_tokenizer(source.files, source.config, source.label)
    ids = {kind: tokenizer.ids(default_text(kind)[:8000]) for kind in ("calib", "eval")}
    model = source.build(torch.float32)
    return SimpleNamespace(model=model, plan=make_plan(model, ids["calib"], FIXED), ids=ids["eval"])


def caches(plan, model):
    """One that answers steps from packed rows, one that decodes."""
    dense = PlannedCache.from_plan(plan, model)
    dense.detach()
    return PlannedCache.from_plan(plan, model), dense


def answered(cache):
    return [0 if layer.steps is None else layer.steps.answered for layer in cache.coded_layers]


def generate(model, rows, cache, **more):
    given = {"max_new_tokens": 40, "min_new_tokens": 40, "do_sample": False, "pad_token_id": 0} | more
    return model.generate(
        rows, past_key_values=cache, return_dict_in_generate=True, output_logits=True, **given
    )


@pytest.mark.parametrize("more", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_generated_text_and_logits_are_those_of_the_decoded_cache(world, more):
    rows = torch.tensor([world.ids[:120], world.ids[200:320]])
    packed, dense = caches(world.plan, world.model)
    found, expected = (generate(world.model, rows, cache, **more) for cache in (packed, dense))
    assert torch.equal(found.sequences, expected.sequences)
    for one, other in zip(found.logits, expected.logits, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=ROUNDING)
    assert answered(packed) == [39] * 4  # every step but the prefill
    assert answered(dense) == [0] * 4
    packed.detach()
    assert world.model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_cropped_and_chunked_caches_are_read_packed(world, attention):
    """Blocks cut in the middle, exact tokens within blocks, and a step behind a chunk."""
    world.model.set_attn_implementation(attention)
    rows = torch.tensor([world.ids[:200]])
    packed, dense = caches(world.plan, world.model)
    with torch.no_grad():
        for cache in (packed, dense):
            world.model(rows[:, :150], past_key_values=cache)
            world.model(rows[:, 150:190], past_key_values=cache)
            cache.crop(-75)
        for at in range(115, 130):
            out = [
                world.model(rows[:, at : at + 1], past_key_values=c).logits[0, -1] for c in (packed, dense)
            ]
            assert torch.allclose(*out, rtol=0, atol=FIRST if at == 115 else ROUNDING)
    assert answered(packed) == [15] * 4
    packed.detach()
    world.model.set_attn_implementation("sdpa")


def test_a_padded_batch_is_decoded_since_its_rows_see_different_tokens(world):
    rows = torch.tensor([world.ids[:110], [0] * 30 + world.ids[300:380]])
    mask = torch.tensor([[1] * 110, [0] * 30 + [1] * 80])
    packed, dense = caches(world.plan, world.model)
    found, expected = (generate(world.model, rows, cache, attention_mask=mask) for cache in (packed, dense))
    assert torch.equal(found.sequences, expected.sequences)
    assert answered(packed) == [0] * 4
    packed.detach()


def test_two_caches_of_one_model_do_not_answer_for_each_other(world):
    rows = torch.tensor([world.ids[:150], world.ids[150:300]])
    one, dense = caches(world.plan, world.model)
    other = PlannedCache.from_plan(world.plan, world.model)
    with torch.no_grad():
        for row, cache in ((rows[:1], one), (rows[1:], other), (rows[:1], dense)):
            world.model(row[:, :140], past_key_values=cache)
        for at in range(140, 148):
            out = world.model(rows[:1, at : at + 1], past_key_values=one).logits
            world.model(rows[1:, at : at + 1], past_key_values=other)
            expected = world.model(rows[:1, at : at + 1], past_key_values=dense).logits
            assert torch.allclose(out, expected, rtol=0, atol=FIRST if at == 140 else ROUNDING)
    assert answered(one) == answered(other) == [8] * 4
    other.detach()
    one.detach()


def test_a_model_that_is_watched_no_more_gets_all_keys(world):
    rows = torch.tensor([world.ids[:150]])
    packed, dense = caches(world.plan, world.model)
    with torch.no_grad():
        for cache in (packed, dense):
            world.model(rows[:, :140], past_key_values=cache)
        world.model.set_attn_implementation("sdpa")
        out = [world.model(rows[:, 140:141], past_key_values=cache).logits for cache in (packed, dense)]
    assert torch.allclose(*out, rtol=0, atol=FIRST)
    assert answered(packed) == [0] * 4
    packed.detach()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma", "phi", "opt", "gpt2", "mixtral", "gpt_oss"])
def test_steps_in_many_architectures_say_what_the_decoded_cache_says(kind, tmp_path):
    """Sinks and caps of logits are decoded; whatever is answered from packed rows is equal."""
    from conftest import make_model

    model = make_model(kind, tmp_path / kind)
    tokens = torch.randint(2, 96, (600,), generator=torch.Generator().manual_seed(0))
    plan = make_plan(
        model, tokens.tolist(), dataclasses.replace(FIXED, context=64, calib_tokens=128, exact="0")
    )
    packed, dense = caches(plan, model)
    with torch.no_grad():
        for cache in (packed, dense):
            model(tokens[None, :52], past_key_values=cache)
            cache.flush()
        for at in range(52, 58):
            out = [model(tokens[None, at : at + 1], past_key_values=c).logits for c in (packed, dense)]
            assert torch.allclose(*out, atol=1e-3)
    assert sum(answered(packed)) == (0 if kind == "gpt_oss" else 6 * len(plan.planned))


@pytest.mark.parametrize("left", [0, 5, -2, -1])
def test_a_block_of_another_length_is_refused(world, left):
    coder = next(iter(world.plan.coders().values()))
    k, v = torch.randn(2, 1, 64, 32, generator=torch.Generator().manual_seed(0)) * 5  # some tokens are exact
    blocks = coder.encode(k, v, None)
    broken = [blocks[0], dataclasses.replace(blocks[1], data=blocks[1].data[:left])]
    with pytest.raises(BnError) as error:
        coder.decode(broken)
    assert error.value.code == 3
