"""Block by block from disk is the whole model: forward, its second moments, and the way back."""

from __future__ import annotations

import gc
import json

import pytest
import torch
from conftest import ARCHITECTURES, make_model
from safetensors.torch import load_file, save_file

from bntools.core.blockwise import blocks as blocks_module
from bntools.core.blockwise.blocks import Blocks, input_squares
from bntools.core.blockwise.loading import Streamed
from bntools.core.blockwise.second_moments import InputMoments
from bntools.core.errors import BAD_INPUT, BnError
from bntools.core.importance.fisher_sweep import Sweep, generator, loss_gradient, random_signs
from bntools.core.model.open import open_model
from bntools.core.system.threads import in_order, single_threaded
from bntools.core.work import states
from bntools.core.work.states import States

DECODERS = [kind for kind in ARCHITECTURES if kind != "bert"]


@pytest.fixture
def small_batches(monkeypatch):
    """Two windows of 16 a batch, so that five windows end in a shorter one."""
    monkeypatch.setattr(blocks_module, "BATCH_TOKENS", 32)


def windows_of(count=5):
    return torch.randint(2, 90, (count, 16), generator=torch.Generator().manual_seed(0))


def matrices(source, path, layer):
    modules = {linear.module for linear in source.linears.values()}
    return [
        name
        for name, module in layer.named_modules()
        if f"{path}.{name}" in modules and getattr(getattr(module, "weight", None), "ndim", 0) == 2
    ]


def watch_inputs(model, paths):
    """Inputs of modules by path, over all passes from now on."""
    fed = {}
    for path in paths:
        model.get_submodule(path).register_forward_pre_hook(
            lambda m, a, path=path: fed.setdefault(path, []).append(a[0].detach().flatten(0, -2))
        )
    return fed


def watch_gradients(found, path):
    def hook(module, args, out):
        if out.requires_grad:
            x = args[0].detach().flatten(0, -2)
            out.register_hook(lambda g: found.setdefault(path, []).append((x, g.flatten(0, -2))))

    return hook


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_streamed_blocks_give_the_bits_of_the_whole_model(kind, tmp_path, small_batches):
    make_model(kind, tmp_path)
    source, windows = open_model(str(tmp_path)), windows_of()
    blocks = Blocks(source, windows)
    whole = source.build(torch.float32)
    last = whole.get_submodule(f"{blocks.path}.{len(blocks) - 1}")
    outputs = []
    last.register_forward_hook(
        lambda m, a, out: outputs.append(out if isinstance(out, torch.Tensor) else out[0])
    )
    inside = [f"{blocks.path}.{i}" for i in range(len(blocks))]
    linears = [linear.module for linear in source.linears.values()]
    fed = watch_inputs(
        whole, [p for p in linears if p.startswith(tuple(f"{i}." for i in inside)) and "experts" not in p]
    )
    with (
        torch.no_grad(),
        single_threaded(),
    ):  # over two threads, a product of experts is summed in another order
        for start in range(0, 5, 2):
            whole(windows[start : start + 2])
    for path, layer in blocks:
        assert not any(p.is_meta for p in layer.parameters())
        for name, found in blocks.gather(matrices(source, path, layer), advance=True).items():
            x = torch.cat(fed[f"{path}.{name}"]).double()
            torch.testing.assert_close(found.double(), x.T @ x / len(x), rtol=1e-5, atol=1e-6)
            assert torch.equal(found, found.T)
    assert torch.equal(blocks.hidden.get(0, 5), torch.cat(outputs))
    assert all(p.is_meta for p in blocks.model.parameters()), "every block is freed"


@pytest.mark.parametrize("kind", DECODERS)
def test_the_backward_sweep_is_whole_model_autograd(kind, tmp_path, small_batches):
    make_model(kind, tmp_path)
    source, windows = open_model(str(tmp_path)), windows_of()
    sweep = Sweep(source, windows, seed=3, outputs=True)
    found = {name: value for _, part in sweep for name, value in part.items()}
    whole = source.build(torch.float32)
    paths = {source.linears[name].module: name for name in found}
    gradients, fed = {}, watch_inputs(whole, [*paths, "lm_head"])
    for path in paths:
        whole.get_submodule(path).register_forward_hook(watch_gradients(gradients, path))
    entering = []

    def enter(module, args, kwargs):
        hidden = args[0] if args else kwargs["hidden_states"]
        hidden.register_hook(lambda g: entering.append(g.flatten(0, -2).double()))

    whole.get_submodule(sweep.blocks.path)[0].register_forward_pre_hook(enter, with_kwargs=True)
    variance = 0
    for index in range(5):
        logits = whole(windows[index : index + 1]).logits
        p = logits.detach().double().softmax(-1)
        variance = variance + (p * (1 - p)).sum((0, 1)) / windows.numel()
        drawn, _ = loss_gradient(logits.detach(), random_signs(generator(3, index), logits.shape))
        logits.backward(drawn)
    for path, name in paths.items():
        x, g = (torch.cat(parts).double() for parts in zip(*gradients[path], strict=True))
        close(found[name].rows, g.square().mean(0))
        close(found[name].outputs, g.T @ g / len(g))
        loud = g.square().mean(1)
        plain, weighted = x.T @ x / len(x), (x * loud[:, None]).T @ x / len(x)
        share = parts_of(found[name].inputs.double(), plain, weighted / loud.mean())
        assert 0.25 < share < 0.75, "about half each"
        close(found[name].inputs, (1 - share) * plain + share * weighted / loud.mean())
    g = torch.cat(entering)
    close(sweep.first, g.T @ g / len(g))
    head = torch.cat(fed["lm_head"]).double()
    close(sweep.head.second, head.T @ head / len(head))
    close(sweep.head.variance, variance)


def parts_of(found, one, other):
    """The share of `other` in a mixture of two matrices."""
    return float(((found - one) * (other - one)).sum() / (other - one).square().sum())


def close(found, expected):
    assert float((found.double() - expected).norm() / expected.norm()) < 1e-5


def test_the_sweep_covers_every_linear_outside_expert_stacks(tmp_path):
    make_model("llama", tmp_path)
    source = open_model(str(tmp_path))
    sweep = Sweep(source, windows_of())
    order = [path for path, _ in sweep]
    assert order == ["model.layers.1", "model.layers.0"]
    sweep = Sweep(source, windows_of())
    assert {name for _, part in sweep for name in part} == set(source.linears)


def live_bytes():
    return sum(t.numel() * t.element_size() for t in gc.get_objects() if issubclass(type(t), torch.Tensor))


def test_what_a_block_was_fed_is_freed_with_it(tmp_path):
    """The hooks of gradients and the inputs they belong to must not keep each other alive."""
    make_model("llama", tmp_path)
    sweep, found = Sweep(open_model(str(tmp_path)), windows_of(64), outputs=True), []
    for _ in sweep:
        gc.collect()
        found.append(live_bytes())
    assert found[1] <= found[0]


def test_random_gradients_have_the_covariance_of_sampled_labels():
    torch.manual_seed(0)
    count = 40_000
    logits = torch.randn(1, 1, 5).expand(1, count, 5)
    gradient, variance = loss_gradient(logits, random_signs(generator(0, 0), logits.shape))
    p = logits[0, 0].softmax(-1)
    fisher, g = p.diag() - p[:, None] * p, gradient[0]
    spread = (g[:, :, None] * g[:, None, :]).flatten(1).std(0).view(5, 5) / count**0.5
    assert float(((g.T @ g / count - fisher).abs() / spread).max()) < 4
    assert float((g.mean(0).abs() / (fisher.diagonal() / count).sqrt()).max()) < 4
    torch.testing.assert_close(variance / count, (p * (1 - p)).double(), rtol=1e-5, atol=1e-7)


def test_random_gradients_vary_less_than_those_of_sampled_labels():
    """Moments of a nearly certain prediction: a label that differs is drawn once in a hundred tokens."""
    logits = torch.tensor([5.0, 0.0, 0.0]).expand(1, 4000, 3)
    found, _ = loss_gradient(logits, random_signs(generator(0, 0), logits.shape))
    p = logits[0, 0].softmax(-1)
    labels = torch.multinomial(p, 4000, replacement=True, generator=generator(1, 0))
    sampled = p - torch.nn.functional.one_hot(labels, 3)
    ours, theirs = (g.square().sum(-1) for g in (found[0], sampled))
    assert float(ours.mean()) == pytest.approx(float(1 - p.square().sum()), rel=0.05)
    assert float(ours.std()) < 0.2 * float(theirs.std())


def test_a_model_without_a_head_has_no_fisher_statistics(tmp_path):
    make_model("bert", tmp_path)
    with pytest.raises(BnError, match="head") as caught:
        Sweep(open_model(str(tmp_path)), windows_of())
    assert caught.value.code == BAD_INPUT


def results(source, threads, sweep):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        if sweep:
            return [
                tensor
                for _, part in Sweep(source, windows_of(), outputs=True)
                for value in part.values()
                for tensor in value
            ]
        blocks, found = Blocks(source, windows_of()), []
        for path, layer in blocks:
            found += blocks.gather(matrices(source, path, layer), advance=True).values()
        return [*found, blocks.hidden.get(0, 5)]
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("sweep", [False, True])
def test_any_number_of_threads_gives_the_same_bits(sweep, tmp_path, small_batches):
    make_model("llama", tmp_path)
    source = open_model(str(tmp_path))
    one, three = results(source, 1, sweep), results(source, 3, sweep)
    assert len(one) > 10
    assert all(torch.equal(a, b) for a, b in zip(one, three, strict=True))


@pytest.mark.parametrize("sweep", [False, True])
def test_hidden_states_on_disk_are_the_same(sweep, tmp_path, small_batches, monkeypatch):
    make_model("llama", tmp_path)
    source = open_model(str(tmp_path))
    memory = results(source, 1, sweep)
    monkeypatch.setattr(states, "RESIDENT", 0)
    assert all(torch.equal(a, b) for a, b in zip(memory, results(source, 1, sweep), strict=True))


def test_states_on_disk_leave_nothing_behind(monkeypatch, tmp_path):
    monkeypatch.setattr(states, "RESIDENT", 0)
    monkeypatch.setattr(states.streams.tempfile, "tempdir", str(tmp_path))
    kept = States((4, 3, 2), torch.bfloat16)
    values = torch.randn(2, 3, 2).bfloat16()
    kept.put(1, values)
    assert torch.equal(kept.get(1, 3), values)
    kept.close()
    assert list(tmp_path.iterdir()) == []


def test_one_block_at_a_time_is_in_memory(tmp_path):
    make_model("mixtral", tmp_path)
    blocks = Blocks(open_model(str(tmp_path)), windows_of())
    sizes = [sum(p.nbytes for p in layer.parameters()) for layer in blocks.layers]
    for _ in blocks:
        real = sum(p.nbytes for p in blocks.model.parameters() if not p.is_meta)
        assert real == sizes[0]
        blocks.release()
        assert all(p.is_meta for p in blocks.model.parameters())


def test_a_loop_left_early_frees_its_block(tmp_path):
    make_model("llama", tmp_path)
    blocks = Blocks(open_model(str(tmp_path)), windows_of())
    for _ in blocks:
        break
    gc.collect()
    assert all(p.is_meta for p in blocks.model.parameters())


def test_a_missing_tensor_is_named_when_its_block_comes(tmp_path):
    make_model("llama", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.layers.1.self_attn.k_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(BnError, match=r"k_proj") as caught:
        list(Blocks(open_model(str(tmp_path)), windows_of()))
    assert caught.value.code == BAD_INPUT


def test_a_tensor_of_another_shape_is_named(tmp_path):
    make_model("llama", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"intermediate_size": 40}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BnError, match=r"mlp") as caught:
        list(Blocks(open_model(str(tmp_path)), windows_of()))
    assert caught.value.code == BAD_INPUT


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_the_head_shares_its_weight_only_where_the_checkpoint_says_so(kind, tmp_path):
    make_model(kind, tmp_path)
    streamed = Streamed(open_model(str(tmp_path)), torch.float32)
    streamed.load("")
    model = streamed.module
    tied = model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert tied == (kind == "qwen2")


def test_panels_sum_to_the_second_moment():
    torch.manual_seed(0)
    x, weights = torch.randn(50, 600), torch.rand(50)
    for given in (None, weights):
        moments = InputMoments(600)
        for part, w in zip(x.split(20), weights.split(20), strict=True):
            for panel, left, right in moments.tasks(part, None if given is None else w):
                panel.addmm_(left, right)
        mean = moments.mean()
        scaled = x if given is None else x * weights[:, None]
        torch.testing.assert_close(mean, x.T @ scaled / 50, rtol=1e-4, atol=1e-5)
        assert torch.equal(mean, mean.T)


def test_jobs_come_back_in_order_and_within_their_memory():
    held, most = [0], [0]

    def work(size):
        held[0] += size
        most[0] = max(most[0], held[0])
        held[0] -= size
        return size

    assert list(in_order(work, [3, 1, 2, 5, 1], lambda size: size, 3)) == [3, 1, 2, 5, 1]
    assert most[0] <= 5


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2_moe"])
def test_squares_are_the_diagonal_of_the_second_moments(kind, tmp_path, small_batches):
    make_model(kind, tmp_path)
    source, expected = open_model(str(tmp_path)), {}
    blocks = Blocks(source, windows_of())
    for path, layer in blocks:
        for name, found in blocks.gather(matrices(source, path, layer), advance=True).items():
            expected[f"{path}.{name}"] = found.diagonal()
    squares = input_squares(source, set(expected), windows_of())
    assert set(squares) == set(expected)
    for path, found in squares.items():
        torch.testing.assert_close(found.float(), expected[path], rtol=1e-5, atol=1e-7)
