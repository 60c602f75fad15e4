"""Tables: the same columns come out of every format, in blocks, in batches and one by one, and damage is refused."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from bntools.core.datasets.tables import open_table
from bntools.core.datasets.tabular.parts import Layout, Matrix, Numbered
from bntools.core.errors import BnError

CSV = "id,height,city,ok\n1,1.5,Bern,3\n2,NA,,4\n3,2.25,Genf,5\n"


@pytest.fixture
def matrix() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32)


def test_csv_gives_columns_their_types_and_counts_what_is_missing(tmp_path):
    (tmp_path / "t.csv").write_text(CSV)
    with open_table(str(tmp_path / "t.csv")) as table:
        assert table.names == ["id", "height", "city", "ok"]
        assert table.rows == 3
        assert [table.kind(name) for name in table.names] == ["integer", "number", "text", "integer"]
        assert table.column("id").dtype == np.int64
        np.testing.assert_array_equal(table.column("height"), [1.5, np.nan, 2.25])
        assert table.column("city").tolist() == ["Bern", "", "Genf"]
        assert [table.missing(name) for name in table.names] == [0, 1, 1, 0]
        assert table.text_columns == ["city"]


def test_blocks_hold_every_number_once_and_no_text(tmp_path):
    (tmp_path / "t.csv").write_text(CSV)
    with open_table(str(tmp_path / "t.csv")) as table:
        blocks = list(table.blocks(2))
    positions = np.concatenate([block.positions for block in blocks])
    np.testing.assert_array_equal(positions, [0, 1, 3])
    np.testing.assert_array_equal(np.hstack([b.values for b in blocks])[:, 2], [3, 4, 5])


@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_a_text_that_appears_late_makes_the_whole_column_text(tmp_path, separator, monkeypatch):
    monkeypatch.setattr("bntools.core.datasets.tabular.delimited._CELLS", 4)
    rows = [f"{i}{separator}{i / 2}" for i in range(9)] + [f"9{separator}late"]
    (tmp_path / "t").write_text("\n".join([f"a{separator}b", *rows]))
    with open_table(str(tmp_path / "t")) as table:
        assert table.kind("b") == "text"
        assert table.column("b").tolist() == [str(i / 2) for i in range(9)] + ["late"]
        np.testing.assert_array_equal(table.column("a"), np.arange(10))


def test_a_line_of_numbers_is_no_line_of_names(tmp_path):
    (tmp_path / "t.csv").write_text("1,2\n3,4\n")
    with open_table(str(tmp_path / "t.csv")) as table:
        assert table.names == ["x.0", "x.1"]
        np.testing.assert_array_equal(table.column("x.1"), [2, 4])
        np.testing.assert_array_equal(table.column("1"), [2, 4])


def test_quoted_separators_bom_and_windows_lines_are_read(tmp_path):
    (tmp_path / "t.csv").write_bytes('\ufeff"a, b",c\r\n"x, ""y""",1\r\nz,2\r\n'.encode())
    with open_table(str(tmp_path / "t.csv")) as table:
        assert table.names == ["a, b", "c"]
        assert table.column("a, b").tolist() == ['x, "y"', "z"]
        np.testing.assert_array_equal(table.column("c"), [1, 2])


def _write(kind: str, path: Path, x: np.ndarray) -> str:
    name = str(path / f"t.{kind}")
    names = [f"x.{i}" for i in range(x.shape[1])]
    if kind == "npy":
        np.save(name, x)
    elif kind == "fortran.npy":
        np.save(name, np.asfortranarray(x))
    elif kind == "big.npy":
        np.save(name, x.astype(">f8"))
    elif kind == "npz":
        np.savez(name, x=x)
    elif kind == "safetensors":
        save_file({"x": x}, name)
    elif kind == "columns.safetensors":
        save_file({name: np.ascontiguousarray(x[:, i]) for i, name in enumerate(names)}, name)
    elif kind == "jsonl":
        lines = [json.dumps(dict(zip(names, row, strict=True))) for row in x.tolist()]
        Path(name).write_text("\n".join(lines))
    else:
        lines = [",".join(names), *(",".join(map(repr, row)) for row in x.tolist())]
        Path(name).write_text("\n".join(lines))
    return name


@pytest.mark.parametrize(
    "kind",
    ["csv", "jsonl", "npy", "fortran.npy", "big.npy", "npz", "safetensors", "columns.safetensors"],
)
def test_every_format_gives_the_same_table(tmp_path, matrix, kind):
    with open_table(_write(kind, tmp_path, matrix)) as table:
        assert sorted(table.names) == [f"x.{i}" for i in range(5)]
        assert table.rows == 7
        for i in range(5):
            np.testing.assert_array_equal(table.column(f"x.{i}"), matrix[:, i])
            assert table.kind(f"x.{i}") == "number"
        for width in (1, 2, 5, 100):
            blocks = list(table.blocks(width))
            together = np.hstack([block.values for block in blocks])
            order = np.argsort([table.name(int(p)) for b in blocks for p in b.positions])
            np.testing.assert_array_equal(together[:, order], matrix)
        batches = list(table.batches(3, ["x.4", "x.0"]))
        assert [len(batch["x.4"]) for batch in batches] == [3, 3, 1]
        np.testing.assert_array_equal(np.concatenate([b["x.0"] for b in batches]), matrix[:, 0])


@pytest.mark.parametrize("place", ["columns", "bntools.columns"])
def test_names_of_columns_come_from_metadata(tmp_path, matrix, place):
    names = list("abcde")
    path = str(tmp_path / "t.safetensors")
    save_file({"x": matrix, "y": np.arange(7)}, path, metadata={place: json.dumps(names)})
    with open_table(path) as table:
        assert sorted(table.names) == [*names, "y"]
        np.testing.assert_array_equal(table.column("c"), matrix[:, 2])
        assert table.column("y").dtype == np.int64
    save_file({"x": matrix}, path, metadata={place: json.dumps(names[:4])})
    with pytest.raises(BnError, match="4 names of columns for the 5"):
        open_table(path)


def test_bfloat16_and_float16_are_read_as_what_they_stand_for(tmp_path):
    import torch
    from safetensors.torch import save_file as save

    x = torch.randn(6, 3)
    save({"x": x.bfloat16(), "h": x.half()}, str(tmp_path / "t.safetensors"))
    with open_table(str(tmp_path / "t.safetensors")) as table:
        np.testing.assert_array_equal(table.column("x.1"), x.bfloat16().float()[:, 1].numpy())
        np.testing.assert_array_equal(table.column("h.2"), x.half().float()[:, 2].numpy())


def test_json_keys_that_an_object_lacks_are_missing_there(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"a": 1, "s": "x"}\n\n{"a": 2.5}\n{"s": "z", "b": true}\n')
    with open_table(str(tmp_path / "t.jsonl")) as table:
        np.testing.assert_array_equal(table.column("a"), [1, 2.5, np.nan])
        assert table.column("s").tolist() == ["x", "", "z"]
        assert table.missing("b") == 2
    (tmp_path / "t.json").write_text('[{"a": true}, {"a": false}]')
    with open_table(str(tmp_path / "t.json")) as table:
        assert table.kind("a") == "boolean"
        np.testing.assert_array_equal(next(table.blocks()).values[:, 0], [1, 0])


def test_a_manifest_is_followed_to_the_table(tmp_path, matrix):
    path = _write("npy", tmp_path, matrix)
    (tmp_path / "m.json").write_text(json.dumps({"bntools": 1, "kind": "table", "path": path}))
    with open_table(str(tmp_path / "m.json")) as table:
        assert len(table) == 5


@pytest.mark.parametrize("kind", ["csv", "npy", "safetensors", "jsonl"])
def test_standard_input_is_as_good_as_a_file(tmp_path, matrix, kind):
    code = (
        "from bntools.core.datasets.tables import open_table\n"
        "table = open_table('-')\nprint(table.rows, len(table), float(table.column('x.3')[6]))"
    )
    data = Path(_write(kind, tmp_path, matrix)).read_bytes()
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True)
    rows, columns, last = done.stdout.split()
    assert (int(rows), int(columns)) == (7, 5)
    assert float(last) == matrix[6, 3]


def test_parquet_needs_pyarrow_and_says_so(tmp_path, monkeypatch):
    (tmp_path / "t.parquet").write_bytes(b"PAR1" + b"\0" * 20)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(BnError, match="pyarrow is not installed") as error:
        open_table(str(tmp_path / "t.parquet"))
    assert error.value.code == 5


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 12), columns=st.integers(1, 12), by_column=st.booleans(),
    dtype=st.sampled_from(["F32", "F64", "I16", "U8"]), data=st.data(),
)  # fmt: skip
def test_any_rectangle_of_a_matrix_is_what_numpy_would_cut_out(rows, columns, by_column, dtype, data):
    form = {"F32": "<f4", "F64": "<f8", "I16": "<i2", "U8": "u1"}[dtype]
    x = np.random.default_rng(0).integers(0, 200, (rows, columns)).astype(form)
    raw = (x.T if by_column else x).tobytes()
    fd = os.memfd_create("matrix")
    os.write(fd, b"head" * 2 + raw)
    step = (rows if by_column else columns) * x.itemsize
    part = Matrix(fd, Layout(8, dtype, rows, columns, step, by_column), Numbered("x", columns))
    a, b = sorted(data.draw(st.tuples(st.integers(0, columns), st.integers(0, columns))))
    np.testing.assert_array_equal(part.block(a, b), x[:, a:b])
    a, b = sorted(data.draw(st.tuples(st.integers(0, rows), st.integers(0, rows))))
    np.testing.assert_array_equal(part.slab(a, b), x[a:b])
    os.close(fd)


def test_a_wide_matrix_is_read_in_pieces_of_its_rows(tmp_path):
    x = np.arange(3 * 5000, dtype=np.float32).reshape(3, 5000)
    np.save(tmp_path / "wide.npy", x)
    with open_table(str(tmp_path / "wide.npy")) as table:
        np.testing.assert_array_equal(table.column("x.4321"), x[:, 4321])
        blocks = list(table.blocks(1024))
    assert [b.values.shape for b in blocks] == [(3, 1024)] * 4 + [(3, 904)]
    np.testing.assert_array_equal(np.hstack([b.values for b in blocks]), x)


BAD = [
    ("a,b\n1,2\n3\n", "line 3 has 1 fields", 3),
    ("a,a\n1,2\n", "'a' stands twice", 3),
    ("a,b\n", "no rows", 3),
    (b"a,b\n\xff\xfe,2\n", "not UTF-8", 3),
    (b"\x00\x01\x02abc", "no table", 3),
    (b"", "is empty", 3),
    (b"\x1f\x8b\x08", "gzip", 3),
    ('{"a": [1]}\n', "lists or objects", 3),
    ('{"a": 1}\n{"a": \n', "line 2 is not valid JSON", 3),
    (b"\x93NUMPY\x01\x00garbage", "no readable numpy file", 3),
]


@pytest.mark.parametrize(("data", "message", "code"), BAD)
def test_damage_is_refused_by_name(tmp_path, data, message, code):
    (tmp_path / "t").write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(BnError, match=message) as error:
        open_table(str(tmp_path / "t"))
    assert error.value.code == code


def test_a_cut_numpy_file_and_columns_of_unequal_length_are_refused(tmp_path, matrix):
    buffer = io.BytesIO()
    np.save(buffer, matrix)
    (tmp_path / "cut.npy").write_bytes(buffer.getvalue()[:-4])
    with pytest.raises(BnError, match="136 bytes of numbers, its header describes 140"):
        open_table(str(tmp_path / "cut.npy"))
    save_file({"x": matrix, "y": np.arange(6)}, tmp_path / "t.safetensors")
    with pytest.raises(BnError, match="has 7 rows, y 6"):
        open_table(str(tmp_path / "t.safetensors"))


def test_an_unknown_column_names_those_that_are_there(tmp_path):
    (tmp_path / "t.csv").write_text(CSV)
    with (
        open_table(str(tmp_path / "t.csv")) as table,
        pytest.raises(BnError, match="no column weight") as error,
    ):
        table.column("weight")
    assert error.value.code == 2
    assert "height" in error.value.hint
    for bad in ("nothing.csv", str(tmp_path)):
        with pytest.raises(BnError) as error:
            open_table(bad)
        assert error.value.code == 2
