"""Labelled data: read as they are, split without leaks, refused when they are damaged."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from bntools.core.datasets import labelled
from bntools.core.errors import BnError


def idx(array: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return head + array.astype(np.uint8).tobytes()


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "train_x": random.integers(0, 256, (120, 4, 5), dtype=np.uint8), "train_y": random.integers(0, 3, 120),
        "test_x": random.integers(0, 256, (30, 4, 5), dtype=np.uint8), "test_y": random.integers(0, 3, 30),
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, arrays: dict[str, np.ndarray]) -> Path:
    names = {"train_x": "train-images-idx3-ubyte", "train_y": "train-labels-idx1-ubyte",
             "test_x": "t10k-images-idx3-ubyte", "test_y": "t10k-labels-idx1-ubyte"}  # fmt: skip
    for key, name in names.items():
        (tmp_path / name).write_bytes(idx(arrays[key]))
    return tmp_path


def rows(split: labelled.LabelledRows) -> set[bytes]:
    return {row.tobytes() for row in split.x}


def test_every_format_gives_the_same_data(folder, arrays, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    save_file(arrays, tmp_path / "a.safetensors")
    save_file({f"{k[-1]}_{k[:-2]}": v for k, v in arrays.items()}, tmp_path / "b.safetensors")
    for name in ("t10k-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
        (folder / name).unlink()
    found = [labelled.read(str(p)) for p in (folder, tmp_path / "a.npz", tmp_path / "a.safetensors",
                                             tmp_path / "b.safetensors")]  # fmt: skip
    for other in found[1:]:
        assert np.array_equal(found[0].train.x, other.train.x)
        assert np.array_equal(found[0].test.y, other.test.y)
        assert found[0].sha256 == other.sha256 or other.train.y.dtype == np.int64


def test_choices_are_made_on_rows_that_are_neither_trained_on_nor_tested(folder, arrays, tmp_path):
    data = labelled.read(str(folder))
    assert (len(data.train), len(data.validation), len(data.test)) == (110, 10, 30)
    assert rows(data.train) | rows(data.validation) == {row.tobytes() for row in arrays["train_x"]}
    np.savez(tmp_path / "one.npz", x=arrays["train_x"], y=arrays["train_y"])
    data = labelled.read(str(tmp_path / "one.npz"))
    assert (len(data.train), len(data.validation), len(data.test)) == (88, 8, 24)
    assert not rows(data.test) & (rows(data.train) | rows(data.validation))


def test_standardized_training_data_have_mean_zero_and_deviation_one(folder):
    data = labelled.read(str(folder))
    x = (data.train.x.astype(float) - data.mean) / data.std
    assert x.mean() == pytest.approx(0, abs=1e-9)
    assert x.std() == pytest.approx(1, abs=1e-9)


def test_shuffled_labels_leave_nothing_but_memory_to_score(folder):
    data = labelled.read(str(folder))
    mixed = labelled.shuffle_labels(data, 0)
    assert mixed.test is mixed.train
    assert not np.array_equal(mixed.train.y, data.train.y)
    assert sorted(mixed.train.y) == sorted(data.train.y)
    half = labelled.first_rows(mixed, 0.5)
    assert len(half.train) == 55
    assert half.test is half.train


def test_shuffled_pixels_are_the_same_pixels_in_one_order_for_all_rows(folder):
    data = labelled.read(str(folder))
    mixed = labelled.shuffle_pixels(data, 0)
    for name in ("train", "validation", "test"):
        before, after = getattr(data, name).x, getattr(mixed, name).x
        assert before.shape == after.shape
        assert not np.array_equal(before, after)
        assert np.array_equal(
            np.sort(before.reshape(len(before), -1)), np.sort(after.reshape(len(after), -1))
        )


@pytest.mark.parametrize(
    ("name", "damage", "code"),
    [
        ("train-images-idx3-ubyte", lambda data: data[:-1], 3),
        ("train-images-idx3-ubyte", lambda data: b"\1" + data[1:], 3),
        ("train-labels-idx1-ubyte", lambda data: idx(np.zeros(7)), 3),
        ("train-labels-idx1-ubyte", lambda data: None, 3),
        ("t10k-images-idx3-ubyte", lambda data: idx(np.zeros((30, 4, 4))), 3),
        ("t10k-labels-idx1-ubyte", lambda data: None, 3),
    ],
)
def test_a_damaged_folder_is_refused(folder, name, damage, code):
    data = damage((folder / name).read_bytes())
    (folder / name).unlink()
    if data is not None:
        (folder / name).write_bytes(data)
    with pytest.raises(BnError) as caught:
        labelled.read(str(folder))
    assert caught.value.code == code


@pytest.mark.parametrize(
    "change",
    [
        {"train_y": np.full(120, 0.5)}, {"train_y": np.full(120, -1)}, {"train_x": np.full((120, 4), np.nan)},
        {"train_x": np.zeros(120)}, {"z": 1},
    ],
)  # fmt: skip
def test_what_is_not_labelled_data_is_refused(tmp_path, arrays, change):
    given = (
        {"z": np.zeros(3)} if "z" in change else {"train_x": arrays["train_x"], "train_y": arrays["train_y"]}
    )
    np.savez(tmp_path / "bad.npz", **(given | change))
    with pytest.raises(BnError) as caught:
        labelled.read(str(tmp_path / "bad.npz"))
    assert caught.value.code == 3


def test_pickles_inside_npz_are_never_loaded(tmp_path):
    np.savez(tmp_path / "evil.npz", x=np.array([{"a": 1}], dtype=object), y=np.zeros(1, int))
    with pytest.raises(BnError) as caught:
        labelled.read(str(tmp_path / "evil.npz"))
    assert caught.value.code == 3
    with pytest.raises(BnError) as caught:
        labelled.read(str(tmp_path / "not-there.npz"))
    assert caught.value.code == 2
