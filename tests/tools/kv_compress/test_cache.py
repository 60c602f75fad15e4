"""The cache in a model: every token coded once, and all that transformers does with caches."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from transformers import DynamicCache

from bntools.core.errors import BnError
from bntools.core.methods.kv import prefix, score
from bntools.core.methods.kv.cache import PlannedCache, full_layers
from bntools.core.methods.kv.entropy_code import EntropyRows
from bntools.core.methods.kv.layer import PlannedLayer
from bntools.core.methods.kv.plan import CachePlan, read_plan, write_plan
from bntools.core.model.open import open_model
from bntools.core.text.documents import default_text
from bntools.core.text.tokens import open_tokenizer
from bntools.tools.kv_compress.run import make_plan, store_prompt
from bntools.tools.kv_compress.settings import Settings

TIGHT = Settings(bits=8, context=128, calib_tokens=512, tokens=0.0)


@pytest.fixture(scope="module")
def source():
    return open_model("default:")


@pytest.fixture(scope="module")
def model(source):
    return source.build(torch.float32)


@pytest.fixture(scope="module")
def ids(source):
    tokenizer = open_tokenizer(source.files, source.config, source.label)
    return {kind: tokenizer.ids(default_text(kind)[:8000]) for kind in ("calib", "eval")}


@pytest.fixture(scope="module")
def plans(model, ids):
    """By name: two codes, with and without token weights, loose and tight."""
    return {
        "tight": make_plan(model, ids["calib"], TIGHT),
        "loose": make_plan(model, ids["calib"], dataclasses.replace(TIGHT, bits=2.5)),
        "weighted": make_plan(model, ids["calib"], dataclasses.replace(TIGHT, bits=2.5, tokens=0.25)),
        "fixed": make_plan(
            model, ids["calib"], dataclasses.replace(TIGHT, bits=3, code="fixed", exact="0.01")
        ),
    }


def greedy(model, cache, rows, new=24, **more):
    given = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0} | more
    return model.generate(rows, past_key_values=cache, **given)


def test_greedy_text_at_eight_bits_is_that_of_the_exact_cache(model, plans, ids):
    rows = torch.tensor([ids["eval"][:120]])
    expected = greedy(model, DynamicCache(config=model.config), rows, 64)
    cache = PlannedCache.from_plan(plans["tight"], model)
    assert torch.equal(greedy(model, cache, rows, 64), expected)
    assert cache.get_seq_length() == 183
    assert cache.layers[0].coded >= 96


@pytest.mark.parametrize("name", ["loose", "fixed"])
def test_each_token_is_coded_once_whatever_the_portions(plans, model, name):
    """One by one, in portions of 7 and 32, and at once: the same bytes, and the same keys and values come back."""
    coder = plans[name].coders()[1]
    generator = torch.Generator().manual_seed(0)
    k, v = torch.randn(2, 2, 1, 256, 32, generator=generator)
    results = []
    for portion in (1, 7, 32, 256):
        layer = PlannedLayer(coder, sink=4, recent=32)
        for start in range(0, 256, portion):
            layer.update(k[:, :, start : start + portion], v[:, :, start : start + portion])
        layer.flush()
        results.append((layer.blocks, *layer.dense()))
    for blocks, keys, values in results[1:]:
        assert blocks == results[0][0]
        assert torch.equal(keys, results[0][1])
        assert torch.equal(values, results[0][2])
    assert layer.coded == 192  # of 252 that are not first ones, 32 at least stay exact


def test_what_is_coded_is_never_coded_again(plans, model, ids, monkeypatch):
    cache = PlannedCache.from_plan(plans["loose"], model)
    seen, encode = [], EntropyRows.encode
    monkeypatch.setattr(
        EntropyRows, "encode", lambda self, k, v, e: seen.append(k.shape[1]) or encode(self, k, v, e)
    )
    greedy(model, cache, torch.tensor([ids["eval"][:100]]), 40)
    assert sum(seen) == sum(layer.coded for layer in cache.coded_layers) > 0


def test_chunks_read_on_from_what_is_coded(model, plans, ids):
    """In chunks the later tokens see coded earlier ones: close to the exact logits, not equal."""
    rows = torch.tensor([ids["eval"][:160]])
    with torch.no_grad():
        exact = model(rows).logits[0, -1].log_softmax(-1)
        cache = PlannedCache.from_plan(plans["tight"], model)
        for part in rows.split(50, 1):
            out = model(part, past_key_values=cache)
    found = out.logits[0, -1].log_softmax(-1)
    assert float((exact.exp() * (exact - found)).sum()) < 1e-3


@pytest.mark.parametrize("left", [130, 97, 30, 3])
def test_crop_gives_the_state_of_a_shorter_text_back(model, plans, ids, left):
    rows = torch.tensor([ids["eval"][:150]])
    cache = PlannedCache.from_plan(plans["tight"], model)
    with torch.no_grad():
        model(rows[:, :140], past_key_values=cache)
        model(rows[:, 140:], past_key_values=cache)
        before = cache.layers[2].dense()
        cache.crop(left - 150)
        assert cache.get_seq_length() == left
        after = cache.layers[2].dense()
        assert torch.equal(after[0], before[0][:, :, :left])
        assert torch.equal(after[1], before[1][:, :, :left])
        out = model(rows[:, left : left + 1], past_key_values=cache).logits[0, -1].log_softmax(-1)
        exact = model(rows[:, : left + 1]).logits[0, -1].log_softmax(-1)
    assert float((exact.exp() * (exact - out)).sum()) < 1e-3
    with pytest.raises(ValueError, match="negative"):
        cache.crop(10)


def test_beams_take_their_keys_along(model, plans, ids):
    cache = PlannedCache.from_plan(plans["loose"], model)
    rows = torch.stack([torch.tensor(ids["eval"][at : at + 100]) for at in (0, 200, 400)])
    with torch.no_grad():
        model(rows, past_key_values=cache)
    cache.flush()
    before = cache.layers[1].dense()
    cache.reorder_cache(torch.tensor([2, 0, 0]))
    after = cache.layers[1].dense()
    assert all(torch.equal(one[[2, 0, 0]], other) for one, other in zip(before, after, strict=True))


def test_beam_search_at_eight_bits_is_that_of_the_exact_cache(model, plans, ids):
    rows = torch.tensor([ids["eval"][:120]])
    expected = greedy(model, DynamicCache(config=model.config), rows, 40, num_beams=3)
    cache = PlannedCache.from_plan(plans["tight"], model)
    assert torch.equal(greedy(model, cache, rows, 40, num_beams=3), expected)


def test_weights_come_from_no_other_run_of_the_model(model, plans, ids):
    """A run with another cache, or none, between two steps: of another length, it used to break both."""
    rows = torch.tensor([ids["eval"][:90]])
    cache = PlannedCache.from_plan(plans["weighted"], model)
    with torch.no_grad():
        model(rows, past_key_values=cache)
        before = [layer.received.clone() for layer in cache.coded_layers]
        model(torch.tensor([ids["eval"][:130]]))
        model(rows[:, :40], past_key_values=DynamicCache(config=model.config))
        assert all(
            torch.equal(a, layer.received) for a, layer in zip(before, cache.coded_layers, strict=True)
        )
        model(torch.tensor([ids["eval"][90:100]]), past_key_values=cache)
    assert cache.coded_layers[0].received.shape[-1] == 100
    cache.detach()


def test_a_padded_batch_says_what_its_rows_say_alone(model, plans, ids):
    long, short = ids["eval"][:110], ids["eval"][300:380]
    rows = torch.tensor([long, [0] * 30 + short])
    mask = torch.tensor([[1] * 110, [0] * 30 + [1] * 80])
    cache = PlannedCache.from_plan(plans["tight"], model)
    both = greedy(model, cache, rows, 16, attention_mask=mask)
    exact = greedy(model, DynamicCache(config=model.config), rows, 16, attention_mask=mask)
    assert torch.equal(both, exact)
    assert cache.batch_size == 2
    cache.batch_select_indices(torch.tensor([1]))
    assert cache.batch_size == 1
    cache.batch_repeat_interleave(3)
    assert [len(layer.blocks) for layer in cache.coded_layers] == [3] * 4


def test_a_cache_is_used_again_after_reset(model, plans, ids):
    cache = PlannedCache.from_plan(plans["loose"], model)
    rows = torch.tensor([ids["eval"][:100]])
    first = greedy(model, cache, rows)
    cache.reset()
    assert cache.get_seq_length() == 0
    assert torch.equal(greedy(model, cache, rows), first)


def test_token_weights_come_from_the_queries_the_model_asks(model, plans, ids):
    before = model.config._attn_implementation
    cache = PlannedCache.from_plan(plans["weighted"], model)
    with torch.no_grad():
        model(torch.tensor([ids["eval"][:200]]), past_key_values=cache)
    cache.flush()
    cache.detach()
    assert model.config._attn_implementation == before
    layer = cache.coded_layers[1]
    classes = layer.coder.levels(layer.blocks[0])[1]
    assert len(set(classes.reshape(-1).tolist())) > 1
    exact = prefix.read_prefix(model, torch.tensor(ids["eval"][:200]), full_layers(model))
    applied = score.apply_plan(plans["weighted"], exact)
    assert applied.bits == pytest.approx(cache.bits_per_value, rel=0.03)


def test_a_stored_prompt_is_read_on_as_if_it_had_just_been_read(model, plans, ids, tmp_path):
    cache, row = store_prompt(model, plans["weighted"], ids["eval"][:150])
    path = str(tmp_path / "p.kv.safetensors")
    manifest = cache.save(path, row)
    loaded = PlannedCache.load(path, model)
    loaded.detach()
    for one, other in zip(cache.coded_layers, loaded.coded_layers, strict=True):
        assert one.blocks == other.blocks
        assert all(torch.equal(a, b) for a, b in zip(one.dense(), other.dense(), strict=True))
    assert loaded.tokens.tolist() == ids["eval"][:150]
    assert loaded.bits_per_value == cache.bits_per_value
    assert cache.nbytes < manifest["bytes"]
    more = torch.tensor([ids["eval"][150:160]])
    with torch.no_grad():
        first = model(more, past_key_values=loaded).logits
        second = model(more, past_key_values=cache.dynamic()).logits
    assert torch.allclose(
        first, second, atol=5e-3
    )  # the ten new tokens are float16 in one, float32 in the other


def test_the_bytes_reported_are_those_in_memory(model, plans, ids):
    cache, row = store_prompt(model, plans["loose"], ids["eval"][:200])
    size = sum(len(b.data) for layer in cache.coded_layers for b in layer.blocks[0]) + 4 * 2 * 4 * 32 * 2
    assert cache.nbytes == size
    assert cache.bits_per_value == pytest.approx(8 * size / (4 * 2 * 32 * len(row)))
    assert cache.bits_per_value == pytest.approx(2.5, rel=0.08)  # other text than the plan's


def test_a_plan_of_another_model_is_refused(model, plans, tmp_path):
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.get_input_embeddings().weight[0, 0] += 1
    with pytest.raises(BnError) as error:
        PlannedCache.from_plan(plans["loose"], other)
    assert error.value.code == 3
    facts = {**plans["loose"].facts, "model": {**plans["loose"].facts["model"], "head_dim": 64}}
    with pytest.raises(BnError, match="head_dim") as error:
        PlannedCache.from_plan(CachePlan(facts, plans["loose"].tensors), model)
    assert error.value.code == 3


@pytest.mark.parametrize("name", ["p.json", "p.safetensors"])
def test_a_plan_is_read_as_it_was_written(plans, tmp_path, name):
    for which in ("weighted", "fixed"):
        write_plan(plans[which], str(tmp_path / name), force=True)
        back = read_plan(tmp_path / name)
        assert back.facts["bits"] == plans[which].facts["bits"]
        assert all(torch.equal(back.tensors[key], tensor) for key, tensor in plans[which].tensors.items())


def test_a_bias_of_all_keys_costs_nothing(source, ids):
    """One coordinate of every key 50 higher: a code by vector norms breaks on it, the mean of the metric takes it."""
    kl = []
    for bias in (0.0, 50.0):
        built = source.build(torch.float32)
        for layer in built.model.layers:
            projection = torch.nn.Linear(160, 32)
            projection.weight = layer.self_attn.k_proj.weight
            projection.bias = torch.nn.Parameter(torch.zeros(32))
            projection.bias.data[31] = bias  # turned by the slowest rotation: hardly at all in a window
            layer.self_attn.k_proj = projection
        plan = make_plan(built, ids["calib"], dataclasses.replace(TIGHT, bits=3))
        kl.append(score.score(built, plan, score.windows_of(ids["eval"], 128, 512))["kl"])
    assert kl[1] == pytest.approx(kl[0], rel=0.5)


KINDS = ("llama", "qwen3", "gemma", "phi", "opt", "gpt2", "mixtral", "gpt_oss")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_models_of_many_architectures_are_planned_and_followed(kind, tmp_path):
    """Grouped heads, biases, learned positions, sinks and windows of attention; random weights, eight bits."""
    from conftest import make_model

    built = make_model(kind, tmp_path / kind)
    tokens = torch.randint(2, 96, (600,), generator=torch.Generator().manual_seed(0))
    settings = dataclasses.replace(TIGHT, context=64, calib_tokens=128)
    plan = make_plan(built, tokens.tolist(), settings)
    report = score.score(built, plan, score.windows_of(tokens.tolist()[128:], 64, 128))
    assert report["kl"] < 1e-3
    cache = PlannedCache.from_plan(plan, built)
    with torch.no_grad():
        out = built(tokens[None, :50], past_key_values=cache).logits
        assert torch.allclose(out, built(tokens[None, :50]).logits, atol=2e-2)
    if kind == "gpt_oss":
        assert 0 < len(plan.planned) < built.config.num_hidden_layers


def test_attention_that_is_not_watched_is_refused():
    import transformers

    config = transformers.BloomConfig(vocab_size=96, hidden_size=32, n_layer=2, n_head=4)
    built = transformers.AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(BnError) as error:
        make_plan(built, list(range(2, 90)) * 8, dataclasses.replace(TIGHT, context=128))
    assert error.value.code == 3
