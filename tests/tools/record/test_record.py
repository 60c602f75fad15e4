"""bntools record: a network's layers on the same rows, epoch by epoch."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from bntools.core.datasets import labelled
from bntools.core.errors import BnError
from bntools.tools.record import Recording, record
from bntools.tools.record.run import chosen_epochs, hidden_widths


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "blobs.npz"
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 400)
    x = rng.standard_normal((400, 6)).astype(np.float32)
    x[:, 0] += 4 * y
    np.savez(path, x=x, y=y)
    return path


def test_a_folder_holds_each_epoch_and_the_rows_it_belongs_to(run, data, tmp_path):
    out = tmp_path / "dumps"
    done = run(
        "record",
        "fc:6,8,5,3",
        "--data",
        data,
        "--train",
        4,
        "--epochs",
        "0,2,4",
        "--rows",
        100,
        "-o",
        f"{out}/",
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["epochs"] == 3
    names = sorted(path.name for path in out.iterdir())
    assert names == [*(f"epoch_{epoch:05d}.safetensors" for epoch in (0, 2, 4)), "inputs.safetensors"]
    layers = load_file(out / "epoch_00002.safetensors")
    assert {name: array.shape for name, array in layers.items()} == {
        "epoch.2.layer.1": (100, 8), "epoch.2.layer.2": (100, 5), "epoch.2.layer.out": (100, 3),
    }  # fmt: skip
    np.testing.assert_allclose(layers["epoch.2.layer.out"].sum(1), 1, rtol=1e-5)
    assert load_file(out / "inputs.safetensors")["label"].shape == (100,)


def test_an_existing_folder_is_kept_without_force(run, data, tmp_path):
    words = ("record", "fc:4", "--data", data, "--train", 1, "--rows", 60, "-o", f"{tmp_path}/d/")
    assert run(*words).returncode == 0
    assert run(*words).returncode == 2
    assert run(*words, "--force").returncode == 0


def test_the_same_seed_records_the_same(data):
    read = labelled.read(str(data))
    settings = Recording(network="fc:4", train=2, epochs="0,2", rows=60)
    first, second = list(record(read, settings)), list(record(read, settings))
    for one, other in zip(first, second, strict=True):
        for name in one.layers:
            np.testing.assert_array_equal(one.layers[name], other.layers[name])


def test_the_loss_falls_and_is_noted(data):
    shots = list(
        record(labelled.read(str(data)), Recording(network="fc:8", train=10, epochs="0,10", rows=60))
    )
    assert shots[1].facts["train_loss"] < shots[0].facts["train_loss"]
    assert shots[1].facts["n_train"] > 200


def test_a_network_that_diverges_is_an_error(data):
    with pytest.raises(BnError, match="diverged"):
        list(
            record(
                labelled.read(str(data)),
                Recording(network="fc:8", train=40, activation="relu", lr=1e30, rows=60),
            )
        )


@pytest.mark.parametrize(
    ("text", "epochs"),
    [("log:5", [0, 1, 4, 21, 100]), ("every:40", [0, 40, 80, 100]), ("0,7", [0, 7])],
)
def test_epochs_are_chosen_by_name(text, epochs):
    assert chosen_epochs(text, 100) == epochs


@pytest.mark.parametrize("text", ["log", "log:0", "fast", "0,101"])
def test_epochs_that_cannot_be_are_refused(text):
    with pytest.raises(BnError) as error:
        chosen_epochs(text, 100)
    assert error.value.code == 2


def test_widths_may_name_input_and_output_or_not(data):
    read = labelled.read(str(data))
    assert hidden_widths("fc:6,9,4,3", read) == "fc:9,4"
    assert hidden_widths("fc:9,4", read) == "fc:9,4"
    for wrong in ("fc:6,9,4", "conv:3", "fc:"):
        with pytest.raises(BnError):
            hidden_widths(wrong, read)
