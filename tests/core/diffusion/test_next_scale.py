"""The next-scale model: tokens, subnets, caches that a caller replaces, and draws that do not depend on batches."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from bntools.core.diffusion.next_scale.model import (
    NAME,
    NextScaleModel,
    draw_codes,
    generate,
    load,
    parse_depths,
    race,
    taught_logits,
)
from bntools.core.diffusion.next_scale.tokens import (
    SIDES,
    TOKENS,
    ScaleTokenizer,
    averaging,
    enlarging,
    scale_slices,
)
from bntools.core.diffusion.next_scale.transformer import NextScaleTransformer, WholeCache, equidistant
from bntools.core.errors import BnError


@pytest.fixture(scope="module")
def model():
    """A small one whose layers all do something."""
    torch.manual_seed(0)
    tokenizer = ScaleTokenizer(entries=16, channels=4, width=8)
    transformer = NextScaleTransformer(16, 4, width=16, heads=2, layers=6, hidden=24)
    for block in transformer.blocks:
        torch.nn.init.normal_(block.out.weight, std=0.3)
        torch.nn.init.normal_(block.down.weight, std=0.3)
    for module in (tokenizer, transformer):
        module.eval().requires_grad_(False)
    return NextScaleModel(tokenizer, transformer, 3, {})


def codes_of(seed: int, images: int = 3) -> torch.Tensor:
    return torch.randint(16, (images, TOKENS), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("side", SIDES)
def test_maps_are_averaged_and_enlarged_as_the_library_does(side):
    x = torch.randn(2, 3, SIDES[-1], SIDES[-1])
    assert torch.allclose(
        (averaging(side) @ x.flatten(2).mT).mT, F.adaptive_avg_pool2d(x, side).flatten(2), atol=1e-6
    )
    small = torch.randn(2, 3, side, side)
    large = F.interpolate(small, size=(SIDES[-1],) * 2, mode="bicubic").flatten(2)
    assert torch.allclose((enlarging(side) @ small.flatten(2).mT).mT, large, atol=1e-5)


def test_codes_rebuild_what_the_quantizer_built(model):
    latent = torch.randn(2, 4, SIDES[-1], SIDES[-1])
    codes, partial = model.tokenizer.quantize(latent)
    total = sum(
        model.tokenizer.contribution(codes[:, where], scale) for scale, where in enumerate(scale_slices())
    )
    assert torch.allclose(total, partial[-1], atol=1e-5)
    inputs = model.tokenizer.inputs(codes)
    assert not inputs[:, 0].any()
    for scale in range(1, len(SIDES)):
        expected = model.tokenizer.pooled(partial[scale - 1], scale)
        assert torch.allclose(inputs[:, scale_slices()[scale]], expected, atol=1e-5)


@pytest.mark.parametrize("layers", [1, 2, 5, 12, 30])
def test_subnets_are_distinct_layers_from_first_to_last(layers):
    for depth in range(1, layers + 1):
        subnet = equidistant(depth, layers)
        assert subnet == sorted(set(subnet))
        assert len(subnet) == depth
        assert subnet[0] == 0
        assert depth == 1 or subnet[-1] == layers - 1


@pytest.mark.parametrize("depths", [(6, 6, 6, 6, 6), (6, 6, 6, 2, 2), (1, 3, 2, 6, 4)])
def test_drawing_through_caches_computes_what_training_did(model, depths):
    codes, labels = codes_of(1), torch.tensor([0, 7, 10])
    whole = model.transformer.taught(model.tokenizer.inputs(codes), labels, depths)
    by_scale = taught_logits(model, codes, labels, depths=depths)
    assert torch.allclose(torch.cat(by_scale, 1), whole, atol=1e-4)


def test_no_map_sees_a_finer_one(model):
    codes, other = codes_of(2), codes_of(3)
    mixed = torch.cat([codes[:, : TOKENS - 49], other[:, TOKENS - 49 :]], 1)
    labels = torch.tensor([1, 2, 3])
    before, after = (taught_logits(model, c, labels) for c in (codes, mixed))
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_shallow_late_scale_leaves_its_keys_out_of_the_skipped_layers(model):
    caches = model.whole_caches()
    taught_logits(model, codes_of(4), torch.tensor([1, 2, 3]), depths=(6, 6, 6, 2, 2), caches=caches)
    assert [sorted(cache.parts) for cache in caches] == [[0, 1, 2, 3, 4], *[[0, 1, 2]] * 4, [0, 1, 2, 3, 4]]
    whole = model.whole_caches()
    taught_logits(model, codes_of(4), torch.tensor([1, 2, 3]), caches=whole)
    share = sum(cache.nbytes for cache in caches) / sum(cache.nbytes for cache in whole)
    assert share == pytest.approx((2 * TOKENS + 4 * 14) / (6 * TOKENS))


class ForgetfulCache(WholeCache):
    """Returns the last map only, and counts what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, int]] = []

    def update(self, k, v, scale_index):
        super().update(k, v, scale_index)
        return k, v

    def observe(self, q, scale_index):
        self.seen.append((scale_index, q.shape[2]))


def test_a_caller_may_put_caches_of_its_own_into_place(model):
    labels, made = torch.tensor([1, 2, 3]), []

    def caches():
        made.append([ForgetfulCache() for _ in range(model.layers)])
        return made[-1]

    drawn = generate(model, labels, 5, caches=caches, batch=2)
    assert len(made) == 2
    assert made[0][0].seen == [(scale, side**2) for scale, side in enumerate(SIDES)]
    assert not torch.equal(drawn.codes, generate(model, labels, 5).codes)


def test_an_image_depends_on_its_number_and_not_on_its_batch(model):
    labels = torch.arange(7)
    whole = generate(model, labels, 9)
    parts = [generate(model, labels[:3], 9, batch=2), generate(model, labels[3:], 9, start=3)]
    assert torch.equal(whole.codes, torch.cat([part.codes for part in parts]))
    assert whole.images.shape == (7, 1, 28, 28)
    assert whole.images.min() >= 0
    assert whole.images.max() <= 1
    assert not torch.equal(whole.codes, generate(model, labels, 10).codes)


def test_codes_are_drawn_from_the_softmax():
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0])
    draws = draw_codes(logits.expand(1, TOKENS, 4).repeat(400, 1, 1), race(3, 0, 400, 4))
    share = torch.bincount(draws.flatten(), minlength=4) / draws.numel()
    p = logits.softmax(0)
    assert ((share - p).abs() < 4 * (p * (1 - p) / draws.numel()).sqrt()).all()


def test_top_p_keeps_the_smallest_set_of_codes_that_holds_the_mass():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(100, TOKENS, 4)
    for top_p, kept in ((0.4, 1), (0.5, 1), (0.6, 2), (0.9, 3), (1.0, 4)):
        assert set(draw_codes(logits, race(0, 0, 100, 4), top_p=top_p).unique().tolist()) == set(range(kept))
    assert set(draw_codes(logits, race(0, 0, 100, 4), temperature=0).unique().tolist()) == {0}


@pytest.mark.parametrize(
    ("text", "depths"),
    [("12@early,4@late", (12, 12, 12, 4, 4)), ("12@4,2@1", (12, 12, 12, 12, 2)), ("6", (6,) * 5),
     ("12@1,6@early,3@1", (12, 6, 6, 6, 3)), ("1@all", (1,) * 5)],
)  # fmt: skip
def test_depths_are_read_by_scale(text, depths):
    assert parse_depths(text, 12, 3) == depths


@pytest.mark.parametrize(
    "text", ["", "13", "0", "x@early", "12@early", "12@early,4@late,4@1", "4@", "12@-1,4", "4@0"]
)
def test_depths_that_do_not_fit_are_refused(text):
    with pytest.raises(BnError) as caught:
        parse_depths(text, 12, 3)
    assert caught.value.code == 2
    assert caught.value.hint


def test_other_files_are_refused(tmp_path):
    with pytest.raises(BnError) as caught:
        load(str(tmp_path / "nothing.safetensors"))
    assert caught.value.code == 2
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(BnError) as caught:
        load(str(tmp_path / "x.safetensors"))
    assert caught.value.code == 3


def test_the_embedded_model_is_small_and_knows_its_classes():
    """A person recognises the digits; the likelihood of the right class stands for that."""
    model = load(NAME)
    assert model.layers == 12
    assert sum(p.nbytes for m in model[:2] for p in m.parameters()) / 2 < 3e6
    labels = torch.arange(10).repeat(3)
    drawn = generate(model, labels, 1, top_p=0.95)
    logits = {
        label: torch.cat(taught_logits(model, drawn.codes, torch.full_like(labels, label)), 1)
        for label in range(10)
    }
    loss = torch.stack([F.cross_entropy(x.mT, drawn.codes, reduction="none").sum(1) for x in logits.values()])
    assert (loss.argmin(0) == labels).float().mean() > 0.8
