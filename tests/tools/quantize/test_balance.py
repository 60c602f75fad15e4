"""Factors on the inputs: they even out the columns, cost a byte, and every reader knows them."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import ARCHITECTURES, make_model
from support.exports import bntools, quantized, weights

from bntools.core.errors import BnError
from bntools.core.model.open import open_model
from bntools.core.packing import grouped
from bntools.core.packing.grouped import GroupSpec
from bntools.kernels.grouped.bits import unpack
from bntools.tools.quantize.fixed.balance import balance
from bntools.tools.quantize.settings import BALANCE_STEPS as STEPS

WEIGHTS = ("--calib", "none", "--calib-tokens", 0)  # they alone decide


def uneven(outs=64, inputs=96, seed=0):
    """A matrix whose rows and columns differ in size by factors of up to 30."""
    torch.manual_seed(seed)
    return (
        torch.randn(outs, inputs) * torch.exp2(4 * torch.rand(outs, 1)) * torch.exp2(5 * torch.rand(inputs))
    )


def test_rows_and_columns_of_the_balanced_matrix_are_even():
    w = uneven()
    even = w / grouped.factors(balance(w), STEPS)
    rows = even.square().mean(1, keepdim=True).sqrt()
    columns = (even / rows).square().mean(0).sqrt()
    assert float(columns.max() / columns.min()) < 1.05  # half a step of 1/16 octave is 2 %
    assert float((w / w.square().mean(1, keepdim=True).sqrt()).square().mean(0).sqrt().std()) > 0.5


def test_a_louder_input_gets_a_larger_factor_and_nothing_else_moves():
    w = uneven()
    before = balance(w).int()
    w[:, 7] *= 8
    moved = balance(w).int() - before
    others = moved[[index for index in range(96) if index != 7]]
    assert int((others - others[0]).abs().max()) <= 1, "the others only follow the mean of all"
    assert abs(int(moved[7] - others[0]) - 3 * STEPS) <= 1


def test_columns_of_zeros_and_of_one_value_do_no_harm():
    w = uneven()
    w[:, 3], w[:, 4], w[5] = 0, 1e-30, 0
    assert torch.isfinite(w / grouped.factors(balance(w), STEPS)).all()


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_eight_bits_give_back_every_architecture(kind, tmp_path):
    make_model(kind, tmp_path / "m")
    source = open_model(str(tmp_path / "m"))
    back = quantized(
        tmp_path / "q", "--bits", 8, "--group-size", 16, "--calib", "none", "--balance", source=tmp_path / "m"
    )
    for name in back.packing:
        before, spec = source.tensor(name).float(), back.packing[name]
        assert spec.inputs == STEPS
        assert float((back.tensor(name).float() - before).norm() / before.norm()) < 0.01
        inputs = before.shape[-2 if spec.transposed else -1]
        assert back.store.entries[f"{name}.inputs"].shape == (*before.shape[:-2], inputs)


def test_the_value_is_what_the_manual_says(tmp_path):
    model = quantized(tmp_path / "q", "--bits", 3, "--calib", "none", "--balance")
    name, spec = next(iter(model.packing.items()))
    get = model.store.tensor
    codes, zeros = (
        unpack(get(f"{name}.{part}"), 3, n) for part, n in (("codes", spec.cols), ("zeros", spec.groups))
    )
    group = torch.arange(spec.cols) // spec.group
    values = (codes.float() - zeros[:, group].float()) * get(f"{name}.scales").float()[:, group]
    expected = values * 2 ** ((get(f"{name}.inputs").float() - 128) / STEPS)
    assert torch.equal(model.tensor(name, torch.float32), expected)
    assert model.stored_bytes(name) == spec.nbytes
    assert grouped.encode({name: (spec, {})})["version"] == 3


@pytest.mark.parametrize("scales", ["fp16", "2"])
def test_without_a_text_balanced_columns_diverge_less(scales, tmp_path, capsys):
    """By the model's own output on a text that neither has seen; 0.159 against 0.164 was measured in groups of 64."""
    found = {}
    for balance_ in ("--balance", "--no-balance"):
        words = ("--bits", 3, "--group-size", 64, *WEIGHTS, "--scales", scales, balance_)
        quantized(tmp_path / "q", "-f", *words)
        capsys.readouterr()
        assert bntools("eval", tmp_path / "q", "--tokens", 2048, "--json") == 0
        found[balance_] = json.loads(capsys.readouterr().out)["kl"]["mean"]
    assert found["--balance"] < found["--no-balance"]


@torch.no_grad()
def test_transformers_multiplies_packed_weights_with_their_factors(tmp_path):
    import transformers

    make_model("llama", tmp_path / "m")
    folder = f"{tmp_path}/q/"
    assert bntools("quantize", tmp_path / "m", "-q", "-o", folder, "--balance", "--group-size", 16) == 0
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert type(model.model.layers[0].mlp.up_proj).__name__ == "PackedLinear"
    ids = torch.randint(2, 90, (1, 12))
    expected = open_model(folder).build(torch.float32)(ids).logits
    torch.testing.assert_close(model(ids).logits, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(model.dequantize()(ids).logits, expected)


def test_formats_without_factors_refuse_the_weight_by_name_or_round_it_anew(tmp_path, capsys):
    model = quantized(tmp_path / "q", "--bits", 4, "--group-size", 32, "--balance")
    capsys.readouterr()
    assert bntools("export", tmp_path / "q", "--to", "gptq", "-o", f"{tmp_path}/g/") == 2
    assert f"{next(iter(model.packing))}: its inputs or outputs have factors" in capsys.readouterr().err
    assert (
        bntools("export", tmp_path / "q", "--to", "gptq", "--requantize", "-q", "-o", f"{tmp_path}/g/") == 0
    )
    before, after = weights(model), open_model(f"{tmp_path}/g/")
    assert all(float((after.tensor(n).float() - w).norm() / w.norm()) < 0.15 for n, w in before.items())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--balance", "--method", "gptq"], "--method rtn"),
        (["--balance", "--per-ic"], "--dim oc"),
        (["--balance", "--dim", "ada"], "--dim oc"),
    ],
)
def test_where_columns_are_not_balanced_it_is_said(words, told, capsys, tmp_path):
    assert bntools("quantize", "default:", "-o", tmp_path / "q", *words) == 2
    assert told in capsys.readouterr().err


def test_a_damaged_entry_is_refused():
    told = grouped.encode({"w": (GroupSpec(3, 16, "oc", False, (8, 32), "F16", False, inputs=16), {})})
    told["tensors"]["w"]["inputs"] = 17
    with pytest.raises(BnError, match="out of range"):
        grouped.decode(told)
