"""Counting an FPGA's resources, and correcting the count by a table whose law is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bntools import cli
from bntools.core.errors import BnError
from bntools.tools.cost_fpga import boosting, synthetic
from bntools.tools.cost_fpga.corrector import fit, smape, split
from bntools.tools.cost_fpga.first_order import TARGETS, count_layer
from bntools.tools.cost_fpga.network import Defaults, legal_reuse, nearest_reuse, parse_network
from bntools.tools.cost_fpga.report import network_report
from bntools.tools.cost_fpga.samples import read_samples

NET = {"layers": [{"type": "dense", "inputs": 16, "outputs": 64, "reuse": 16}, {"type": "relu"},
                  {"type": "dense", "outputs": 10, "weight_bits": 8}]}  # fmt: skip


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("fpga") / "table.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in synthetic.rows(480, 3)))
    return path


@pytest.fixture
def call(capsys):
    def run(*words):
        status = cli.run(["cost-fpga", *map(str, words)])
        return status, *capsys.readouterr()

    run.text = lambda: capsys.readouterr().out
    return run


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 2000))
@settings(max_examples=60, deadline=None)
def test_the_nearest_legal_reuse_is_that_of_a_search(inputs, outputs, asked):
    legal = [r for r in range(1, inputs * outputs + 1) if legal_reuse(inputs, outputs, r)]
    assert nearest_reuse(inputs, outputs, asked) == min(legal, key=lambda r: (abs(r - asked), r))


def test_a_layer_is_counted_by_hand():
    (layer,) = parse_network({"layers": [{"type": "dense", "inputs": 16, "outputs": 64, "reuse": 16}]}, "net")
    counted = count_layer(layer)
    assert (counted.products, counted.multipliers, counted.dsp, counted.interval) == (1024, 64, 64, 16)
    (layer,) = parse_network({"layers": [{"type": "conv2d", "channels": 3, "kernel": [3, 3], "filters": 8,
                                          "positions": 100, "strategy": "resource", "weight_bits": 8,
                                          "input_bits": 8, "reuse": 27}]}, "net")  # fmt: skip
    counted = count_layer(layer)
    assert (counted.products, counted.multipliers, counted.dsp) == (27 * 8 * 100, 8, 0)
    assert (counted.interval, counted.bram) == (2700, 2)


def test_sharing_multipliers_never_takes_more_of_them_and_never_less_time():
    last = None
    for reuse in (1, 2, 4, 8, 16, 32, 64):
        total = network_report(parse_network(NET, "net", Defaults(reuse)))["first_order"]
        if last is not None:
            assert total["dsp"] <= last["dsp"]
            assert total["interval"] >= last["interval"]
        last = total


def test_boosted_quantiles_hold_their_share():
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(2000, 3))
    y = np.sin(5 * x[:, 0]) + (0.1 + x[:, 1]) * rng.normal(size=2000)
    for quantile in (0.05, 0.5, 0.95):
        trees = boosting.fit_quantile(x[:1000], y[:1000], quantile, rounds=60)
        below = (y[1000:] <= boosting.predict(trees, x[1000:])).mean()
        assert below == pytest.approx(quantile, abs=0.05)  # 3 standard errors of 1000 rows are 0.02 to 0.05


def test_an_architecture_is_never_on_both_sides_of_the_split():
    groups = [f"g{i // 3}" for i in range(90)]
    parts = [{groups[i] for i in rows} for rows in split(groups, 0)]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert sum(map(len, parts)) == 30


def test_the_law_of_a_synthetic_table_is_recovered_within_three_percent(table):
    corrector = fit(read_samples(str(table), Defaults()), "boosting", 0, lambda count: None)
    for name in TARGETS:
        found = corrector.report["targets"][name]
        assert found["smape"] < 3 or name == "dsp"
        assert found["interval90_holds"] > 0.75
    assert corrector.report["targets"]["lut"]["first_order_smape"] > 40
    assert corrector.report["targets"]["dsp"]["smape"] < 6


@pytest.mark.slow
@pytest.mark.parametrize("model", ["graph", "transformer"])
def test_networks_over_layers_beat_counting(table, model, monkeypatch):
    from bntools.tools.cost_fpga import neural

    monkeypatch.setattr(neural, "EPOCHS", 60)
    found = fit(read_samples(str(table), Defaults()), model, 0, lambda count: None).report["targets"]
    for name in ("lut", "ff", "cycles", "interval"):
        assert found[name]["beats"], (name, found[name])


def test_a_corrector_goes_through_its_file(call, table, tmp_path):
    out = tmp_path / "c.safetensors"
    status, text, err = call("--fit", table, "--model", "boosting", "-o", out)
    assert status == 0, err
    report = json.loads(text)
    assert (report["kind"], report["model"], report["manifest"]["path"]) == (
        "fpga-corrector",
        "boosting",
        str(out),
    )
    assert cli.run(["info", str(out)]) == 0
    facts = json.loads(call.text())["facts"]
    assert (facts["model"], facts["rows"]) == ("boosting", 480)
    assert facts["smape lut"] == report["targets"]["lut"]["smape"]
    (tmp_path / "net.json").write_text(json.dumps(NET))
    status, text, err = call(tmp_path / "net.json", "--corrector", out, "--part", "xczu9eg")
    assert status == 0, err
    report = json.loads(text)
    assert report["calibrated"]
    lut = report["total"]["lut"]
    assert lut["low"] <= lut["value"] <= lut["high"]
    assert lut["value"] > 1.5 * report["first_order"]["lut"]
    assert report["part"]["fits"]


def test_a_csv_under_other_names_is_the_same_table(table, tmp_path):
    import csv

    rows = [json.loads(line) for line in table.read_text().splitlines()]
    with open(tmp_path / "t.csv", "w", newline="") as file:
        writer = csv.DictWriter(
            file, ["architecture", "layers", "DSP", "LUT", "FF", "BRAM", "CYCLES", "INTERVAL"]
        )
        writer.writeheader()
        for row in rows:
            values = {name.upper(): row[name] for name in TARGETS}
            writer.writerow(
                {"architecture": row["architecture"], "layers": json.dumps(row["layers"]), **values}
            )
    assert read_samples(str(tmp_path / "t.csv"), Defaults()) == read_samples(str(table), Defaults())


def test_without_a_table_an_estimate_says_that_it_is_counted(call, tmp_path):
    (tmp_path / "net.json").write_text(
        json.dumps({"layers": [{"type": "dense", "inputs": 6, "outputs": 4, "reuse": 5}]})
    )
    status, out, err = call(tmp_path / "net.json")
    report = json.loads(out)
    assert (status, report["kind"], report["calibrated"]) == (0, "cost-fpga", False)
    assert report["total"]["lut"]["high"] is None
    assert "reuse 5 is not legal, the nearest that is: 6" in err or "nearest that is" in err


@pytest.mark.parametrize(
    ("content", "words", "code", "what"),
    [
        ({"layers": [{"type": "lstm"}, {"type": "gru"}]}, (), 3, "unknown layer types gru, lstm"),
        ({"layers": []}, (), 3, "lists no layers"),
        ({"layers": [{"type": "dense", "inputs": 0, "outputs": 2}]}, (), 3, "inputs is 0"),
        (
            {"layers": [{"type": "dense", "inputs": 2, "outputs": 2, "strategy": "fast"}]},
            (),
            3,
            "strategy is",
        ),
        (NET, ("--part", "z80"), 2, "--part z80"),
        (NET, ("--corrector", "net.json"), 3, "JSON where tensors"),
    ],
)
def test_mistakes_are_named(call, tmp_path, monkeypatch, content, words, code, what):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.json").write_text(json.dumps(content))
    status, out, err = call("net.json", *words)
    assert (status, out) == (code, "")
    assert what in err
    assert "Traceback" not in err


def test_a_table_is_refused_when_small_or_damaged(tmp_path):
    lines = [json.dumps(row) for row in synthetic.rows(60, 0)]
    for text, what in (
        ("\n".join(lines[:49]), "49 rows, 50 are needed"),
        ("\n".join([*lines, '{"layers": 3}']), "lists no layers"),
        ("\n".join([*lines, "{"]), "is not JSON"),
        ("\n".join(lines).replace('"dsp":', '"dps":'), "dsp is missing"),
        ("a,b\n1,2\n", "no column layers"),
    ):
        (tmp_path / "t").write_text(text)
        with pytest.raises(BnError, match=what) as caught:
            read_samples(str(tmp_path / "t"), Defaults())
        assert caught.value.code == 3


def test_a_corrector_that_beats_nothing_is_not_made(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        {**row, **{name: int(rng.integers(0, 2) * 1000) for name in TARGETS}} for row in synthetic.rows(60, 0)
    ]
    (tmp_path / "t").write_text("\n".join(map(json.dumps, rows)))
    samples = read_samples(str(tmp_path / "t"), Defaults())
    middling = [sample._replace(measured=dict.fromkeys(TARGETS, 5.0)) for sample in samples]
    with pytest.raises(BnError, match="beats neither") as caught:
        fit(middling, "boosting", 0, lambda count: None)  # the median of equal numbers is never wrong
    assert caught.value.code == 4


def test_smape_is_the_benchmarks():
    assert smape(np.array([[1.0], [0.0]]), np.array([[3.0], [0.0]]))[0] == pytest.approx(50)
