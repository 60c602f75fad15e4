"""A budget above what 8 bits take gives 8 bits, and says so; an option of 0 is not one left out."""

from __future__ import annotations

import pytest
from support.exports import bntools

from bntools.core.model.open import open_model


@pytest.mark.parametrize("budget", ["9.5", "12", "16", "90MB"])
@pytest.mark.parametrize("words", [(), ("--method", "gptq", "--calib-tokens", 256)])
def test_more_than_eight_bits_take_is_eight_bits(budget, words, tmp_path, capsys):
    assert bntools("quantize", "default:", "--budget", budget, *words, "-o", tmp_path / "q") == 0
    told = capsys.readouterr().err
    assert "above what 8 bits take" in told
    assert {spec.bits for spec in open_model(str(tmp_path / "q")).packing.values()} == {8}


def test_a_budget_that_binds_is_kept(tmp_path, capsys):
    assert (
        bntools("quantize", "default:", "--budget", "8.0", "--calib-tokens", 256, "-o", tmp_path / "q") == 0
    )
    assert "above what" not in capsys.readouterr().err
    model = open_model(str(tmp_path / "q"))
    assert model.bits_per_weight(model.packing) <= 8.0


@pytest.mark.parametrize(("option", "value"), [("--group-size", 0), ("--bits", 0), ("--group-size", -2)])
def test_zero_is_a_value_and_is_refused(option, value, tmp_path, capsys):
    assert bntools("quantize", "default:", option, value, "-o", tmp_path / "q") == 2
    assert str(value) in capsys.readouterr().err
