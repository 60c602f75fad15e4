"""Planes in parts, kept and continued: the same report, nothing measured twice, nothing of another dump believed."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from bntools.core.datasets.activations import write_activations
from bntools.core.errors import BnError
from bntools.core.information.epochs import open_dump
from bntools.core.work.shards import Shard
from bntools.tools.ib_analyze import Planes, analyze, parts
from bntools.tools.ib_analyze.gap import disagreement, over_runs, rank_correlation
from bntools.tools.ib_analyze.run import RunOptions, gap_of_run, write_part

ROWS = 300


def _write(folder, epochs, seed: int = 0) -> None:
    """Two layers an epoch, of two and of one number, and two classes that have nothing to do with them."""
    rng = np.random.default_rng(seed)
    x, labels = rng.standard_normal((ROWS, 3)), rng.integers(0, 2, ROWS)
    write_activations(
        str(folder / "inputs.safetensors"), {"inputs": x.astype("f")}, {"label": labels}, force=True
    )
    for epoch in epochs:
        tensors = {
            f"epoch.{epoch}.layer.1": x[:, :2]
            + 0.5 * np.random.default_rng(epoch).standard_normal((ROWS, 2)),
            f"epoch.{epoch}.layer.out": x[:, :1] + 0.1 * epoch,
        }
        losses = {"train_loss": 1 / (1 + epoch), "test_loss": 1.0, "n_train": 100.0}
        write_activations(
            str(folder / f"epoch_{epoch:05d}.safetensors"), {name: rows.astype("f") for name, rows in tensors.items()},
            facts={"epochs": {str(epoch): losses}}, force=True,
        )  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "dump"
    path.mkdir()
    _write(path, (0, 1, 2))
    return path


SETTINGS = Planes(conditional=True)


@pytest.mark.parametrize("estimator", ["compressed", "mixture", "binning"])
def test_parts_make_the_report_of_the_whole(folder, tmp_path, estimator):
    dump, settings = open_dump(str(folder)), Planes(estimator=estimator, conditional=True)
    for index in range(3):
        write_part(
            dump, None, settings, Shard(index, 3), place=(str(tmp_path / f"{index}.safetensors"), False)
        )
    files = [str(tmp_path / f"{index}.safetensors") for index in (2, 0, 1)]
    whole = analyze(dump, None, settings, gap=True)
    assert analyze(dump, None, settings, gap=True, how=RunOptions(gather=files)) == whole
    assert analyze(dump, None, settings, gap=True, how=RunOptions(threads=3)) == whole


def test_a_part_without_a_layer_is_written_and_joined(folder, tmp_path):
    dump = open_dump(str(folder))
    for index in range(9):
        write_part(
            dump, None, SETTINGS, Shard(index, 9), place=(str(tmp_path / f"{index}.safetensors"), False)
        )
    files = [str(tmp_path / f"{index}.safetensors") for index in range(9)]
    assert analyze(dump, None, SETTINGS, how=RunOptions(gather=files)) == analyze(dump, None, SETTINGS)


def test_parts_of_other_activations_are_refused(folder, tmp_path):
    part = str(tmp_path / "0.safetensors")
    write_part(open_dump(str(folder)), None, SETTINGS, Shard(0, 1), place=(part, False))
    with pytest.raises(BnError, match="bins") as error:
        analyze(open_dump(str(folder)), None, Planes(conditional=True, bins=7), how=RunOptions(gather=[part]))
    assert error.value.code == 3
    path = folder / "epoch_00001.safetensors"
    rows = np.zeros((ROWS, 2), np.float32)
    write_activations(
        str(path), {"epoch.1.layer.1": rows, "epoch.1.layer.out": rows[:, :1].copy()}, force=True
    )
    with pytest.raises(BnError, match="not in the parts as it is in the dump"):
        analyze(open_dump(str(folder)), None, SETTINGS, how=RunOptions(gather=[part]))


def test_only_layers_that_are_new_are_measured_again(folder, tmp_path, monkeypatch):
    work, seen = str(tmp_path / "work"), []
    measure = parts.measure
    monkeypatch.setattr(
        parts, "measure", lambda place, *rest: seen.append(place.tensor) or measure(place, *rest)
    )
    first = analyze(open_dump(str(folder)), None, SETTINGS, how=RunOptions(work=work))
    assert len(seen) == 6
    assert analyze(open_dump(str(folder)), None, SETTINGS, how=RunOptions(work=work)) == first
    assert len(seen) == 6
    _write(folder, (7,))
    analyze(open_dump(str(folder)), None, SETTINGS, how=RunOptions(work=work))
    assert seen[6:] == ["epoch.7.layer.1", "epoch.7.layer.out"]


def test_a_folder_of_other_settings_or_inputs_is_refused(folder, tmp_path):
    work = str(tmp_path / "work")
    analyze(open_dump(str(folder)), None, SETTINGS, how=RunOptions(work=work))
    analyze(open_dump(str(folder)), None, Planes(units="bits", conditional=True), how=RunOptions(work=work))
    with pytest.raises(BnError, match="sigmas"):
        analyze(
            open_dump(str(folder)), None, Planes(sigmas=(0.2,), conditional=True), how=RunOptions(work=work)
        )
    _write(folder, (0, 1, 2), seed=1)
    with pytest.raises(BnError, match="inputs"):
        analyze(open_dump(str(folder)), None, SETTINGS, how=RunOptions(work=work))


def test_the_command_divides_and_joins(run, folder, tmp_path):
    whole = json.loads(run("ib-analyze", folder).stdout)
    for index in range(2):
        done = run("ib-analyze", folder, "--shard", f"{index}/2", "-o", tmp_path / f"{index}.safetensors")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["kind"] == "ib-analyze-part"
    gathered = run("ib-analyze", folder, *(f"--gather={tmp_path}/{index}.safetensors" for index in range(2)))
    assert json.loads(gathered.stdout) == whole
    spread = run("ib-analyze", folder, "--on", "local", "--jobs", 2, "--work", tmp_path / "jobs", "-q")
    assert spread.returncode == 0, spread.stderr
    assert json.loads(spread.stdout) == whole


def test_both_ways_to_the_conditional_agree_on_a_channel_that_is_known(tmp_path):
    """T = x + noise and labels of a coin: I(X; T | Y) = I(X; T) = ln(1 + 1 / s^2) / 2."""
    rng = np.random.default_rng(0)
    x, labels, sigma = rng.standard_normal((2000, 1)), rng.integers(0, 2, 2000), 0.5
    tensors = {"inputs": x.astype("f"), "epoch.0.layer.1": x.astype("f")}
    write_activations(
        str(tmp_path / "d.safetensors"), tensors, {"label": labels},
        facts={"epochs": {"0": {"train_loss": 0.1, "test_loss": 0.2, "n_train": 100.0}}},
    )  # fmt: skip
    settings = Planes(sigmas=(sigma,), queries=2000)
    entry = analyze(open_dump(str(tmp_path / "d.safetensors")), None, settings, gap=True)["gap"]["epochs"][0]
    truth = math.log1p(1 / sigma**2) / 2
    assert entry["classwise"] == pytest.approx(truth, abs=0.1)
    assert entry["conditional"] == pytest.approx(truth, abs=0.1)
    assert entry["discrepancy"]["value"] == pytest.approx(entry["conditional"] - entry["classwise"], abs=1e-9)
    assert entry["discrepancy"]["low"] <= 0.05
    assert entry["discrepancy"]["high"] >= -0.05


@pytest.mark.parametrize("estimator", ["mixture", "binning"])
def test_where_both_ways_are_one_formula_they_are_equal(folder, estimator):
    gap = analyze(open_dump(str(folder)), None, Planes(estimator=estimator), gap=True)["gap"]
    assert gap["epochs"][0]["discrepancy"]["value"] == pytest.approx(0, abs=1e-9)


def test_rows_of_a_class_too_small_are_left_out_of_the_second_way(tmp_path, folder):
    labels = np.zeros(ROWS, np.int64)
    labels[:3] = 1
    found = analyze(open_dump(str(folder)), labels, SETTINGS, gap=True)
    assert all(math.isfinite(entry["classwise"]) for entry in found["gap"]["epochs"])


def test_runs_are_compared_at_their_last_epochs(run, folder, tmp_path):
    others = []
    for seed in (1, 2, 3):
        other = tmp_path / f"run{seed}"
        other.mkdir()
        _write(other, (0, seed), seed=seed)
        others += ["--run", other]
    done = run("ib-analyze", folder, "--gap", *others)
    assert done.returncode == 0, done.stderr
    gap = json.loads(done.stdout)["gap"]
    assert [entry["epoch"] for entry in gap["runs"]] == [2, 1, 2, 3]
    alone = gap_of_run(open_dump(str(tmp_path / "run2")), Planes())
    assert gap["runs"][2]["scaling"] == alone["epochs"][-1]["scaling"]
    assert -1 <= gap["rank_correlation_of_runs"] <= 1
    assert run("ib-analyze", folder, "--run", folder).returncode == 2


def test_rank_correlation_is_of_ranks():
    entries = [{"scaling": s, "gap": g, "epoch": 0} for s, g in ((1, 10), (2, 20), (3, 90), (4, 91))]
    assert rank_correlation(entries) == pytest.approx(1)
    assert over_runs([("a", {"epochs": entries})])["rank_correlation_of_runs"] is None


def test_ways_that_differ_for_sure_are_warned_of():
    apart = {"discrepancy": {"value": -0.6, "low": -0.7, "high": -0.5}}
    unsure = {"discrepancy": {"value": -0.6, "low": -1.3, "high": 0.1}}
    assert "-0.60 nats" in disagreement({"epochs": [apart, apart, unsure]})[0]
    assert disagreement({"epochs": [apart, unsure]}) == []
    assert disagreement({"epochs": []}) == []
