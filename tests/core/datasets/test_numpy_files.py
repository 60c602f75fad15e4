"""Arrays of numpy files: what their headers say is held against their size."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from bntools.core.datasets import numpy_files
from bntools.core.errors import BnError


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


@pytest.mark.parametrize(
    "array", [np.eye(3), np.asfortranarray(np.ones((2, 5), "f2")), np.zeros((0, 4)), np.array(7)]
)
@pytest.mark.parametrize("read", [numpy_files.read_npy, numpy_files.map_npy])
def test_what_numpy_writes_is_read(array, read, tmp_path):
    np.save(tmp_path / "a.npy", array)
    with (tmp_path / "a.npy").open("rb") as file:
        assert np.array_equal(read(file, "a"), array)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (",
        "{'descr': 'lies', 'fortran_order': False, 'shape': (1,), }",
    ],
)
@pytest.mark.parametrize("shape", ["npy", "npz"])
def test_a_header_that_does_not_fit_its_file_is_refused(header, shape, tmp_path):
    path, data = tmp_path / f"a.{shape}", npy(header, b"\0" * 8)
    if shape == "npz":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", data)
    else:
        path.write_bytes(data)
    with path.open("rb") as file, pytest.raises(BnError) as caught:
        (numpy_files.read_npy if shape == "npy" else numpy_files.read_npz)(file, "a")
    assert caught.value.code == 3


def test_an_archive_of_torch_is_none_of_numpy():
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("m/data.pkl", b"")
    with pytest.raises(BnError, match="none of numpy"):
        numpy_files.npz_names(whole, "m.pt")
