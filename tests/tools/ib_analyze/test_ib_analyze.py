"""Information planes: what they find where the answer is known, what they warn of, and what they refuse."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from bntools.core.datasets.activations import write_activations
from bntools.core.errors import BnError
from bntools.core.information.epochs import open_dump
from bntools.tools.ib_analyze import Planes, analyze
from bntools.tools.ib_analyze.settings import of_paper, parse_limits, parse_sigmas

ROWS = 400


def _layers(epoch: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Two layers: the second a noisy part of the first, the noisier the later the epoch."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((ROWS, 6))
    first = x[:, :4] + 0.3 * rng.standard_normal((ROWS, 4))
    second = first[:, :2] + (0.2 + 0.6 * epoch) * np.random.default_rng(epoch).standard_normal((ROWS, 2))
    return {f"epoch.{epoch}.layer.1": first, f"epoch.{epoch}.layer.2": second}


@pytest.fixture(scope="module")
def dump(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dump")
    x = np.random.default_rng(0).standard_normal((ROWS, 6))
    labels = (x[:, 0] > 0).astype(np.int64)
    write_activations(str(folder / "inputs.safetensors"), {"inputs": x.astype(np.float32)}, {"label": labels})
    for epoch in (0, 1, 4):
        facts = {"epochs": {str(epoch): {"train_loss": 1 / (1 + epoch), "test_loss": 1.0, "n_train": 400.0}}}
        tensors = {name: rows.astype(np.float32) for name, rows in _layers(epoch).items()}
        write_activations(str(folder / f"epoch_{epoch:05d}.safetensors"), tensors, facts=facts)
    return folder


@pytest.mark.parametrize("estimator", ["compressed", "mixture", "binning"])
def test_every_point_has_its_cap_and_lies_in_its_interval(dump, estimator):
    report = analyze(open_dump(str(dump)), None, Planes(estimator=estimator))
    assert len(report["points"]) == 6
    for point in report["points"]:
        for key, cap in (("I_XT", math.log(ROWS)), ("I_TY", math.log(2))):
            figure = point[key]
            assert figure["cap"] == pytest.approx(cap, abs=0.01)
            assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= figure["cap"]


def test_compression_that_is_there_is_found_with_its_epoch(dump):
    report = analyze(open_dump(str(dump)), None, Planes())
    steady, compressing = report["phases"]
    assert compressing["fitted_epoch"] == 0
    assert compressing["low"] > 0
    assert compressing["significant"]
    assert not steady["significant"]


def test_bits_scale_every_figure(dump):
    nats, bits = (analyze(open_dump(str(dump)), None, Planes(units=units)) for units in ("nats", "bits"))
    for one, other in zip(nats["points"], bits["points"], strict=True):
        assert other["I_XT"]["value"] == pytest.approx(one["I_XT"]["value"] / math.log(2))
        assert other["I_XT_given_Y"] == pytest.approx(one["I_XT_given_Y"] / math.log(2))


def test_binning_of_a_deterministic_layer_is_the_entropy_of_its_bins(tmp_path):
    """The 12-bit toy: all 4,096 patterns once, so that nothing is estimated."""
    patterns = (np.arange(4096)[:, None] >> np.arange(12)) & 1
    layer = np.tanh(patterns @ np.random.default_rng(0).standard_normal((12, 3)) / 3)
    coarse = (patterns[:, :2] * 2 - 1) * 0.5
    tensors = {"epoch.0.layer.1": layer.astype(np.float32), "epoch.0.layer.2": coarse.astype(np.float32)}
    write_activations(str(tmp_path / "toy.safetensors"), tensors, {"label": patterns[:, 0]})
    settings = of_paper("szt2017", Planes(units="bits", queries=4096))
    first, second = analyze(open_dump(str(tmp_path / "toy.safetensors")), None, settings)["points"]
    assert second["I_XT"]["value"] == pytest.approx(2)
    assert second["I_TY"]["value"] == pytest.approx(1)
    assert 2 < first["I_XT"]["value"] <= 12
    assert first["I_XT"]["cap"] == pytest.approx(12)


def test_layers_of_growing_scale_under_one_noise_break_the_order_and_are_named(tmp_path):
    rng = np.random.default_rng(0)
    small = 0.1 * rng.standard_normal((ROWS, 4))
    tensors = {"epoch.0.layer.1": small, "epoch.0.layer.2": 40 * small}
    tensors |= {"epoch.1.layer.1": 3 * small, "epoch.1.layer.2": 400 * small}
    path = str(tmp_path / "relu.safetensors")
    write_activations(path, {name: rows.astype(np.float32) for name, rows in tensors.items()})
    absolute = analyze(open_dump(path), None, Planes(estimator="mixture", noise="absolute", sigmas=(0.3,)))
    assert {entry["layer"] for entry in absolute["order_violations"]} == {"2"}
    text = " ".join(absolute["warnings"])
    for word in ("order", "scale", "saturated"):
        assert word in text
    relative = analyze(open_dump(path), None, Planes(estimator="mixture"))
    assert not relative["order_violations"]


def test_components_left_out_have_a_bound_on_their_loss(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((ROWS, 6))
    write_activations(str(tmp_path / "a.safetensors"), {
        "inputs": x.astype(np.float32), "epoch.0.layer.1": x.astype(np.float32),
        "epoch.0.layer.2": (x * [3, 2, 1, 1, 1e-4, 1e-4]).astype(np.float32),
    })  # fmt: skip
    wide, narrow = analyze(open_dump(str(tmp_path / "a.safetensors")), None, Planes(components=4))["points"]
    assert narrow["I_XT"]["loss_upper"] < 0.01
    assert wide["I_XT"]["loss_upper"] == pytest.approx(
        math.log1p(1 / 0.01), rel=0.1
    )  # two of half ln(1 + 1 / s^2)


def test_the_gap_is_beside_its_scaling(dump):
    gap = analyze(open_dump(str(dump)), None, Planes(), gap=True)["gap"]
    assert [entry["epoch"] for entry in gap["epochs"]] == [0, 1, 4]
    for entry in gap["epochs"]:
        assert entry["scaling"] == pytest.approx(math.sqrt((entry["conditional"] + 1) / 400))
        assert entry["gap"] == pytest.approx(1 - 1 / (1 + entry["epoch"]))


def test_the_command_reads_a_folder_and_draws(run, dump, tmp_path):
    done = run("ib-analyze", dump, "--plot", tmp_path / "plane.png")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kind"] == "ib-analyze"
    assert (tmp_path / "plane.png").read_bytes()[:4] == b"\x89PNG"


def test_a_recording_streams_into_planes(run, tmp_path):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 300)
    np.savez(tmp_path / "d.npz", x=(rng.standard_normal((300, 4)) + y[:, None]).astype(np.float32), y=y)
    stream = run(
        "record",
        "fc:5",
        "--data",
        tmp_path / "d.npz",
        "--train",
        2,
        "--rows",
        100,
        "--epochs",
        "0,2",
        "-o",
        "-",
    )
    assert stream.returncode == 0, stream.stderr
    done = run("ib-analyze", "-", data=stream.stdout)
    assert json.loads(done.stdout)["epochs"] == [0, 2]


def test_labels_of_a_file_replace_those_of_the_dump(run, dump, tmp_path):
    np.save(tmp_path / "y.npy", np.arange(ROWS) % 4)
    report = json.loads(run("ib-analyze", dump, "--labels", tmp_path / "y.npy").stdout)
    assert report["points"][0]["I_TY"]["cap"] == pytest.approx(math.log(4))
    np.save(tmp_path / "short.npy", np.arange(ROWS - 1) % 4)
    assert run("ib-analyze", dump, "--labels", tmp_path / "short.npy").returncode == 3
    np.save(tmp_path / "float.npy", np.arange(ROWS) / 2.0)
    assert run("ib-analyze", dump, "--labels", tmp_path / "float.npy").returncode == 3


def test_losses_come_from_a_file_too(run, dump, tmp_path):
    lines = [json.dumps({"epoch": e, "train_loss": 0.1, "test_loss": 0.3, "n_train": 100}) for e in (0, 1, 4)]
    (tmp_path / "l.jsonl").write_text("\n".join(lines))
    report = json.loads(run("ib-analyze", dump, "--gap", "--losses", tmp_path / "l.jsonl").stdout)
    assert report["gap"]["epochs"][0]["gap"] == pytest.approx(0.2)
    (tmp_path / "bad.jsonl").write_text("{}")
    assert run("ib-analyze", dump, "--losses", tmp_path / "bad.jsonl").returncode == 3


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"x": np.ones((60, 2))}, "epoch.E.layer.L"),
        ({"epoch.0.layer.1": np.ones((60, 2)), "epoch.0.layer.2": np.ones((60, 2)),
          "epoch.1.layer.1": np.ones((60, 2))}, "lacks layer 2"),
        ({"epoch.0.layer.1": np.ones((20, 2))}, "at least 50"),
        ({"epoch.0.layer.1": np.full((60, 2), np.nan)}, "NaN"),
    ],
)  # fmt: skip
def test_dumps_that_cannot_be_measured_are_refused(tmp_path, tensors, message):
    path = str(tmp_path / "d.safetensors")
    write_activations(path, {name: rows.astype(np.float32) for name, rows in tensors.items()})
    with pytest.raises(BnError, match=message) as error:
        analyze(open_dump(path), None, Planes(estimator="mixture"))
    assert error.value.code == 3


def test_epochs_of_other_rows_are_refused(tmp_path):
    for epoch, rows in ((0, 60), (1, 61)):
        tensors = {f"epoch.{epoch}.layer.1": np.ones((rows, 2), np.float32)}
        write_activations(str(tmp_path / f"e{epoch}.safetensors"), tensors)
    with pytest.raises(BnError, match="rows"):
        open_dump(str(tmp_path))


def test_a_constant_layer_tells_nothing(tmp_path):
    path = str(tmp_path / "d.safetensors")
    write_activations(path, {"epoch.0.layer.1": np.ones((60, 2), np.float32)})
    assert analyze(open_dump(path), None, Planes(estimator="mixture"))["points"][0]["I_XT"]["value"] == 0


def test_half_precision_dumps_are_read(tmp_path):
    for dtype in ("float16", "bfloat16"):
        path = str(tmp_path / f"{dtype}.safetensors")
        tensors = {name: rows.astype(np.float32) for name, rows in _layers(0).items()}
        write_activations(path, tensors, dtype=dtype)
        assert analyze(open_dump(path), None, Planes(estimator="mixture"))["points"][0]["I_XT"]["value"] > 0


def test_ranges_and_noise_are_parsed_or_refused():
    assert parse_limits("fixed:-1,1") == (-1, 1)
    assert parse_sigmas("0.3,0.1") == (0.1, 0.3)
    for wrong in ("fixed", "fixed:1,-1", "wide"):
        with pytest.raises(BnError):
            parse_limits(wrong)
    with pytest.raises(BnError):
        parse_sigmas("a")
    with pytest.raises(BnError):
        Planes(sigmas=(0.0,))
