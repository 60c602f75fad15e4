"""Parameters and FLOPs derived from a config against the model that transformers builds of it."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny_configs import build, small_config

from bntools.core.architecture.shapes import counts
from bntools.core.architecture.shapes.families import FAMILIES
from bntools.core.architecture.shapes.layers import model_shape
from bntools.core.errors import BnError

SOON = ("llama", "gpt2", "gemma2", "qwen3_moe", "deepseek_v3")


def assert_exact(kind: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    config = small_config(kind)
    model = build(config)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.randint(2, 100, (2, 32)), use_cache=False)
    shape = model_shape(json.loads(config.to_json_string(use_diff=False)))
    assert counts.parameters(shape) == sum(p.numel() for p in model.parameters())
    assert counts.prefill_flops(shape, 2, 32, dense=True) == counter.get_total_flops()


@pytest.mark.parametrize("kind", SOON)
def test_a_config_gives_what_the_built_model_has_and_does(kind):
    assert_exact(kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in FAMILIES if kind not in SOON])
def test_every_known_architecture_is_exact(kind):
    assert_exact(kind)


@pytest.mark.parametrize("kind", ["llama", "gemma2", "mistral", "deepseek_v3"])
def test_the_cache_is_as_large_as_the_one_that_transformers_keeps(kind):
    config = small_config(kind)
    model = build(config)
    with torch.no_grad():
        cache = model(torch.randint(2, 100, (1, 32)), use_cache=True).past_key_values
    stored = sum(t.numel() for layer in cache.layers for t in (layer.keys, layer.values))
    shape = model_shape(json.loads(config.to_json_string(use_diff=False)))
    assert counts.cached_numbers(shape, 32) == stored


def test_decoding_token_by_token_costs_what_a_causal_prefill_does():
    for kind in ("llama", "mixtral", "gemma3_text"):
        shape = model_shape(json.loads(small_config(kind).to_json_string(use_diff=False)))
        steps = sum(counts.decode_flops(shape, 3, t) for t in range(1, 41))
        assert steps == counts.prefill_flops(shape, 3, 40)


def test_absorbed_latent_attention_is_the_cheaper_order_of_a_long_context():
    shape = model_shape(json.loads(small_config("deepseek_v3").to_json_string(use_diff=False)))
    layer = shape.layers[0]
    assert layer.attention is not None
    plain = counts.pair_products(layer.attention) * 4096
    assert sum(counts.layer_step(layer, 4096)) < counts.products(layer.linears) + plain + 4095 * 16 * 128
    # brute force over the two orders at one token: making keys and values of one token beats absorbing
    assert sum(counts.layer_step(layer, 1)) == counts.products(layer.linears) + plain // 4096


@given(st.integers(1, 60), st.integers(1, 60))
@settings(max_examples=40, deadline=None)
def test_a_window_counts_each_pair_it_shows(length, window):
    from bntools.core.architecture.shapes.shape import AttentionShape

    attention = AttentionShape(1, 1, 1, 1, window)
    assert attention.causal_pairs(length) == sum(min(t, window) for t in range(1, length + 1))


def test_experts_touched_by_a_batch_match_a_simulation():
    generator = torch.Generator().manual_seed(0)
    hits = [
        len({int(e) for _ in range(5) for e in torch.randperm(16, generator=generator)[:2]})
        for _ in range(4000)
    ]
    mean = sum(hits) / len(hits) / 16
    assert counts.distinct_share(16, 2, 5) == pytest.approx(mean, rel=0.01)  # se 0.0015
    assert counts.distinct_share(16, 2, 1) == 2 / 16


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"model_type": "mamba"}, "unknown architecture mamba"),
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"hidden_size": -4}, "hidden_size is -4"),
        ({"num_attention_heads": 5, "num_key_value_heads": 5}, "does not divide into 5 heads"),
        ({"num_key_value_heads": 3}, "do not divide into 3"),
        ({"vocab_size": "many"}, "vocab_size is 'many'"),
    ],
)
def test_an_impossible_config_is_refused_by_the_key(change, what):
    good = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 128}  # fmt: skip
    model_shape(good)
    with pytest.raises(BnError, match=what) as caught:
        model_shape({**good, **change})
    assert caught.value.code == 3


def test_an_unknown_architecture_can_be_read_as_another():
    config = {"model_type": "new", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
              "intermediate_size": 96, "vocab_size": 128}  # fmt: skip
    as_llama = model_shape(config, family="llama")
    assert counts.parameters(as_llama) == counts.parameters(model_shape({**config, "model_type": "llama"}))
    with pytest.raises(BnError) as caught:
        model_shape(config, family="nothing")
    assert caught.value.code == 2


def test_the_text_part_of_a_config_with_towers_is_counted_and_named():
    text = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "intermediate_size": 96, "vocab_size": 128}  # fmt: skip
    shape = model_shape({"model_type": "llava", "text_config": text, "vision_config": {"hidden_size": 8}})
    assert counts.parameters(shape) == counts.parameters(model_shape(text))
    assert shape.notes == ("only text_config of the config is counted",)
