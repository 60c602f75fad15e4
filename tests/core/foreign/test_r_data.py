"""R's serialized tables: read back as they were written here by hand, everything else refused."""

from __future__ import annotations

import struct
import zlib

import pytest

from bntools.core.errors import BnError
from bntools.core.foreign.r_data import columns, lazy_data

NIL = struct.pack(">i", 254)


def integer(*values, attributes=b""):
    return (
        struct.pack(f">ii{len(values)}i", 13 | (512 if attributes else 0), len(values), *values) + attributes
    )


def real(*values, attributes=b""):
    return (
        struct.pack(f">ii{len(values)}d", 14 | (512 if attributes else 0), len(values), *values) + attributes
    )


def chars(text):
    if text is None:
        return struct.pack(">ii", 9, -1)
    return struct.pack(">ii", 9 | 1 << 18, len(text.encode())) + text.encode()


def strings(*texts):
    return struct.pack(">ii", 16, len(texts)) + b"".join(map(chars, texts))


def generic(*items, attributes=b""):
    return struct.pack(">ii", 19 | (512 if attributes else 0), len(items)) + b"".join(items) + attributes


def pairs(**items):
    body = b"".join(
        struct.pack(">i", 2 | 1024) + struct.pack(">i", 1) + chars(tag) + item for tag, item in items.items()
    )
    return body + NIL


def serialized(item, version=2):
    head = b"X\n" + struct.pack(">iii", version, 4 << 16, 2 << 16)
    return head + (struct.pack(">i", 5) + b"UTF-8" if version == 3 else b"") + item


def package(**things):
    data, places = b"", {}
    for name, thing in things.items():
        packed = struct.pack(">i", len(thing)) + zlib.compress(thing)
        places[name] = integer(len(data), len(packed))
        data += packed
    variables = generic(*places.values(), attributes=pairs(names=strings(*places)))
    index = generic(variables, generic(), attributes=pairs(names=strings("variables", "references")))
    packer = zlib.compressobj(wbits=31)
    return packer.compress(serialized(index)) + packer.flush(), data


def frame(version=2):
    factor = integer(
        2, 1, -(2**31), attributes=pairs(levels=strings("a", "b"), **{"class": strings("factor")})
    )
    return serialized(
        generic(
            real(1.5, 2.5, float("nan")), factor, strings("x", None, "z"),
            attributes=pairs(names=strings("n", "f", "s"), **{"class": strings("data.frame")}),
        ),
        version,
    )  # fmt: skip


@pytest.mark.parametrize("version", [2, 3])
def test_a_data_frame_becomes_columns_with_levels_and_missing_values(version):
    ((name, thing),) = lazy_data(*package(d=frame(version)))
    assert name == "d"
    assert columns(thing) == {"n": [1.5, 2.5, None], "f": ["b", "a", None], "s": ["x", None, "z"]}


def test_a_matrix_with_an_outcome_becomes_columns():
    matrix = real(1, 2, 3, 4, attributes=pairs(dim=integer(2, 2), dimnames=generic(NIL, strings("u", "v"))))
    thing = serialized(generic(matrix, strings("p", "q"), attributes=pairs(names=strings("x", "y"))))
    ((_, read),) = lazy_data(*package(t=thing))
    assert columns(read) == {"y": ["p", "q"], "u": [1.0, 2.0], "v": [3.0, 4.0]}


def test_what_is_no_table_is_none_and_code_is_refused():
    ((_, read),) = lazy_data(*package(v=serialized(real(1, 2))))
    assert columns(read) is None
    with pytest.raises(BnError, match="type 3 is no data"):
        list(lazy_data(*package(f=serialized(struct.pack(">i", 3)))))
    index, data = package(d=frame())
    with pytest.raises(BnError, match="cannot be decompressed"):
        list(lazy_data(index, b"zzzz" * len(data)))
