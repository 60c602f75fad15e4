"""Scales and zeros of a few bits: found well, stored exactly, polished without harm."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from conftest import make_model

from bntools.core.errors import BnError
from bntools.core.model.open import open_model
from bntools.core.packing import grouped
from bntools.core.packing.grouped import GroupSpec
from bntools.kernels.grouped.coded_scales import Meta
from bntools.kernels.grouped.operations import dequantize, dequantize_reference, matvec
from bntools.kernels.rounding.grid_search import search
from bntools.tools.quantize.fixed import coded_grids
from bntools.tools.quantize.fixed.calibrated import calibrated
from bntools.tools.quantize.fixed.gptq import How, damped_factor, gptq
from bntools.tools.quantize.fixed.rounding import quantize
from bntools.tools.quantize.plan import task_of
from bntools.tools.quantize.settings import Grid, Settings, parse_override

METAS = (2, 3, 4)


def problem(outs=40, inputs=96, seed=0):
    """A weight, and correlated inputs of uneven size."""
    torch.manual_seed(seed)
    x = torch.randn(4 * inputs, inputs) @ torch.randn(inputs, inputs) * torch.rand(inputs)
    return torch.randn(outs, inputs) * 0.1 * (0.5 + torch.rand(outs, 1)), x.T @ x / len(x)


def loss(values, w, h):
    e = (values - w).double()
    return float(((e @ h.double()) * e).sum())


def brute(w, h, meta, lowest):
    """The least weighted error of one group over every scale and zero in reach."""
    scales = meta.scales(torch.arange(lowest, lowest + meta.count))[:, None, None]
    zeros = meta.zeros(torch.arange(meta.count))[None, :, None]
    codes = (w / scales + zeros).round().clamp(0, 2**meta.bits - 1)
    return float((((codes - zeros) * scales - w).square() * h).sum(-1).min())


@pytest.mark.parametrize("meta", METAS)
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_search_is_trying_everything_with_2_bits_and_close_to_it_with_more(bits, meta):
    w, h = problem(12, 48)
    h = h.diagonal().contiguous()
    kind = Meta(bits, meta)
    fit = search(w.T.contiguous(), h, 16, kind, 1)
    found = best = 0.0
    for row in range(len(w)):
        assert int(fit.index[:, row].min()) >= int(fit.lowest[row])
        assert int(fit.index[:, row].max()) < int(fit.lowest[row]) + kind.count
        for group in range(3):
            at = slice(16 * group, 16 * group + 16)
            s, z = kind.scales(fit.index[group, row]), kind.zeros(fit.zeros[group, row])
            codes = (w[row, at] / s + z).round().clamp(0, 2**bits - 1)
            found += float((((codes - z) * s - w[row, at]).square() * h[at]).sum())
            best += brute(w[row, at], h[at], kind, int(fit.lowest[row]))
    assert best * (1 - 1e-5) <= found <= best * (1 + 1e-5 if meta == 2 else 1.3)


@pytest.mark.parametrize("meta", METAS)
def test_scales_and_zeros_survive_their_coding(meta):
    kind = Meta(3, meta)
    index = torch.randint(0, 200, (7, 1)) + torch.randint(0, kind.count, (7, 5)) + kind.lowest
    zeros = kind.zeros(torch.randint(0, kind.count, (7, 5)))
    scales = kind.scales(index)
    parts = kind.encode(scales, zeros)
    found = kind.decode(parts["rows"], parts["scales"], parts["zeros"], 5)
    assert torch.equal(found[0], scales)
    assert torch.equal(found[1], zeros)


@pytest.mark.parametrize("trellis", [0, 3])
@pytest.mark.parametrize("group", [16, 20, -1])
@pytest.mark.parametrize("transposed", [False, True])
def test_the_file_holds_the_values_that_were_reached(trellis, group, transposed):
    w, h = problem()
    coded = gptq(
        w, h, Grid(3, group, meta=2, trellis=trellis), How("weighted", 1), stored_transposed=transposed
    )
    shape = (96, 40) if transposed else (40, 96)
    spec = GroupSpec(3, group, "oc", False, shape, "F32", transposed, 2, trellis)
    stored = grouped.tensors("w", spec, [coded.packed])
    assert set(stored) == set(grouped.part_names("w", spec))
    assert sum(tensor.nbytes for tensor in stored.values()) == spec.nbytes
    assert spec == grouped.decode(grouped.encode({"w": (spec, {})}))["w"]
    read = grouped.dense("w", spec, stored.__getitem__, torch.float32)
    assert torch.equal(read.T if transposed else read, coded.values)


@pytest.mark.parametrize("trellis", [0, 5])
def test_products_are_those_of_the_dense_matrix(trellis):
    w, h = problem(outs=300)
    coded = gptq(w, h, Grid(3, 16, meta=3, trellis=trellis))
    dense = dequantize(coded.packed)
    assert torch.equal(dense, dequantize_reference(coded.packed))
    for count in (1, 3):
        x = torch.randn(count, 96)
        torch.testing.assert_close(matvec(coded.packed, x), x @ dense.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("trellis", [0, 3])
def test_every_round_of_polish_lowers_the_output_error(trellis):
    w, h = problem()
    h.diagonal().add_(0.01 * h.diagonal().mean())
    grid = Grid(2, 16, meta=2, trellis=trellis)
    order = h.diagonal().argsort(descending=True)
    factor, damping = damped_factor(h, torch.zeros(len(h), dtype=torch.bool), order)
    errors = [
        loss(
            coded_grids.by_feedback(w, h, coded_grids.Inverse(factor, order, damping), grid, rounds)[1], w, h
        )
        for rounds in range(4)
    ]
    assert all(after <= before * (1 + 1e-4) for before, after in itertools.pairwise(errors))
    assert errors[-1] < 0.97 * errors[0]


def test_coded_grids_beat_the_usual_ones_at_fewer_bits():
    ratios = []
    for seed in range(3):
        w, h = problem(seed=seed)
        usual = gptq(w, h, Grid(3, 32), How("weighted"))  # 3 + 19 / 32 bits
        ours = gptq(w, h, Grid(3, 16, meta=2, trellis=5), How(rounds=2))  # 3 + 4 / 16 + 8 / 96 bits
        ratios.append(ours.error / usual.error)
    assert sum(ratios) / 3 < 0.9


def test_an_old_reader_still_reads_what_it_can():
    old = GroupSpec(4, 128, "oc", False, (8, 8), "F32", False)
    new = GroupSpec(3, 16, "oc", False, (8, 8), "F32", False, 2, 5)
    table = grouped.encode({"w": (old, {})})
    assert table["version"] == 1
    assert not {"meta", "trellis"} & set(table["tensors"]["w"])
    assert grouped.encode({"w": (old, {}), "v": (new, {})})["version"] == 2


@pytest.mark.parametrize(
    "change", [{"meta": 5}, {"meta": 7}, {"trellis": 1}, {"trellis": 9}, {"meta": 2, "dim": "ic"}]
)
def test_a_damaged_description_is_refused(change):
    spec = GroupSpec(3, 16, "oc", False, (8, 8), "F32", False)
    with pytest.raises(BnError):
        grouped.decode({"version": 2, "tensors": {"w": {**spec.as_json(), **change}}})


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mixtral"])
@pytest.mark.parametrize("method", ["rtn", "gptq"])
def test_every_architecture_takes_them(kind, method, tmp_path):
    make_model(kind, tmp_path / "m")
    model = open_model(str(tmp_path / "m"))
    settings = Settings(Grid(8, 16, meta=4, trellis=3), method=method, search="weighted", rounds=1)
    task = task_of(model, settings)
    if method == "rtn":
        results = list(quantize(task, {}))
    else:
        windows = torch.randint(2, 90, (3, 16), generator=torch.Generator().manual_seed(0))
        results = list(calibrated(task, {}, windows))
    for result in results:
        if result.spec:
            assert result.spec.meta == 4
            assert result.measured["weight_error"] < 0.02


@pytest.mark.parametrize("text", ["q=meta:5", "q=trellis:3", "q=meta:2,dim:ic", "q=meta:2,symmetric"])
def test_grids_that_cannot_be_are_refused(text):
    with pytest.raises(BnError):
        parse_override(text)


@pytest.mark.slow
def test_the_command_line_to_the_score(run, tmp_path):
    scores = {}
    for name, options in (
        ("plain", ["--group-size", "32", "--grid", "weighted"]),
        ("coded", ["--group-size", "16", "--scales", "2", "--trellis", "5", "--refit", "2"]),
    ):
        out = tmp_path / f"{name}.safetensors"
        done = run("quantize", "default:", "--bits", "2", "--method", "gptq", "--calib-tokens", "4096",
                   *options, "-o", str(out))  # fmt: skip
        assert done.returncode == 0, done.stderr
        told = run("eval", str(out), "--against", "default:", "--tokens", "2000", "--json")
        scores[name] = json.loads(told.stdout)["kl"]["mean"]
    assert scores["coded"] < 0.85 * scores["plain"]


@pytest.mark.parametrize(
    "arguments", [["--trellis", "5"], ["--refit", "2"], ["--scales", "2", "--per-ic"], ["--scales", "2", "--symmetric"]]
)  # fmt: skip
def test_options_that_need_each_other_say_so(run, arguments):
    done = run("quantize", "default:", "-o", "never.safetensors", *arguments)
    assert done.returncode == 2
    assert "hint:" in done.stderr
