"""Seeded mutations of files of every kind, and what a reader of one may do with them: refuse, and nothing else."""

from __future__ import annotations

import copy
import gzip
import io
import json
import random
import zipfile
from collections.abc import Callable
from typing import Any

_ODD: list[Any] = [
    None, True, False, -1, 0, 1, 2, 3, 7, 63, 255, 65536, 2**31 - 1, 2**31, 2**53, 2**63, 10**30, 1e-320, 1e308,
    float("inf"), float("-inf"), float("nan"), 0.5, -0.0, "", "x", "0", "../a", "\x00", "x" * 5000, [], {}, [[]],
    [[[[]]]], {"a": 1}, [1], [0, 0], [1, 2, 3], [None], ["a", "b"], "F32", "I64", "U8", "F8_E8M0", "BF16", "F64",
]  # fmt: skip
_TYPES = {8: ["U8", "I8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"], 16: ["F16", "BF16", "I16", "U16"],
          32: ["F32", "I32", "U32"], 64: ["F64", "I64", "U64", "C64"]}  # fmt: skip
_WIDTH = {name: width for width, names in _TYPES.items() for name in names}


def bytewise(data: bytes, draw: random.Random) -> bytes:
    """Some bytes flipped, set, cut out, repeated or cut off; words overwritten by sizes."""
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4, 16))):
        place = (
            draw.randrange(max(len(out), 1))
            if draw.random() < 0.5
            else draw.randrange(min(len(out), 256) or 1)
        )
        how = draw.randrange(7)
        if how == 0:
            out[place : place + 1] = bytes([draw.randrange(256)])
        elif how == 1 and out:
            out[place % len(out)] ^= 1 << draw.randrange(8)
        elif how == 2:
            del out[place:]
        elif how == 3:
            del out[place : place + draw.randrange(1, 40)]
        elif how == 4:
            out[place:place] = out[place : place + draw.randrange(1, 40)]
        elif how == 5:
            width = draw.choice((2, 4, 8))
            value = draw.choice(
                (0, 1, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1)
            )
            out[place : place + width] = (value % 2 ** (8 * width)).to_bytes(width, "little")
        else:
            out[place:place] = bytes(draw.randrange(256) for _ in range(draw.randrange(1, 9)))
    return bytes(out)


def tweak(value: Any, draw: random.Random) -> Any:
    """A JSON value with one or some of its nodes replaced, left out, doubled or moved."""
    value = copy.deepcopy(value)
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        places = list(_places(value))
        if not places:
            return _odd(draw)
        holder, key = draw.choice(places)
        how = draw.randrange(8)
        if how == 0:
            del holder[key]
        elif how == 1:
            other, at = draw.choice(places)
            holder[key] = (
                copy.deepcopy(other[at]) if at in other or (isinstance(at, int) and at < len(other)) else None
            )
        elif how == 2 and isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
            holder[key] = draw.choice((holder[key] + 1, holder[key] - 1, -holder[key], holder[key] * 1000003))
        elif how == 3 and isinstance(holder, dict):
            holder[draw.choice(("x", "", "shape", "kind", "\ud800"))] = _odd(draw)
        else:
            holder[key] = _odd(draw)
    return value


def _odd(draw: random.Random) -> Any:
    return copy.deepcopy(draw.choice(_ODD))


def _places(value: Any) -> Any:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def _dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def json_text(data: bytes, draw: random.Random) -> bytes:
    """One JSON value, mutated as such."""
    return _dumps(tweak(json.loads(data), draw)).encode("utf-8", "surrogatepass")


def json_lines(data: bytes, draw: random.Random) -> bytes:
    """JSON lines, one of them mutated as JSON."""
    lines = data.splitlines()
    place = draw.randrange(len(lines))
    lines[place] = json_text(lines[place], draw)
    return b"\n".join(lines) + b"\n"


def artifact(data: bytes, draw: random.Random) -> bytes:
    """A safetensors file whose header stays sound: its metadata, types, shapes, side files or data are changed."""
    length = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + length])
    meta = head.pop("__metadata__", {})
    parts = {
        k: [v["dtype"], v["shape"], data[8 + length :][slice(*v["data_offsets"])]] for k, v in head.items()
    }
    how = draw.randrange(10)
    if how < 4:
        _metadata(meta, parts, draw)
    elif how == 9:
        text = _dumps(tweak({"__metadata__": meta, **head}, draw)).encode("utf-8", "surrogatepass")
        return len(text).to_bytes(8, "little") + text + data[8 + length :]
    else:
        for _ in range(draw.choice((1, 1, 2))):
            _part(parts, draw)
    return joined(meta, parts)


def _metadata(meta: dict[str, Any], parts: dict[str, Any], draw: random.Random) -> None:
    """Change the JSON in one metadata value or side file."""
    values = [key for key, text in meta.items() if text[:1] in "[{"]
    files = [name for name, part in parts.items() if name.endswith(".json") and part[2].lstrip()[:1] in b"[{"]
    key = draw.choice([*values * 2, *files, *meta, *files] or [""])
    if key in parts:
        text = _dumps(tweak(json.loads(parts[key][2]), draw)).encode("utf-8", "surrogatepass")
        parts[key] = ["U8", [len(text)], text]
        meta.pop("bntools.files", None)
    elif key in values:
        meta[key] = _dumps(tweak(json.loads(meta[key]), draw))
    elif key:
        meta[key] = draw.choice(
            ("", "0", "1", "x", "null", "[]", "{}", "model", "stack", "cbm", "sae", "1e999")
        )


def _part(parts: dict[str, Any], draw: random.Random) -> None:
    """Change type, shape, data or name of one tensor so that the header stays sound."""
    if not parts:
        return
    names = list(parts)
    name, other = draw.choice(names), draw.choice(names)
    kind, shape, raw = parts[name]
    how = draw.randrange(9)
    if how == 0:
        parts[name][0] = draw.choice(_TYPES.get(_WIDTH.get(kind, 8), ["U8"]))
    elif how == 1:
        parts[name][1] = draw.choice(
            ([*shape[::-1]], [1, *shape], [*shape, 1], [_count(shape)], [_count(shape), 1])
        )
    elif how == 2:
        rows = draw.choice((0, 1, max(0, (shape or [1])[0] - 1)))
        each = len(raw) // shape[0] if shape and shape[0] else 0
        parts[name][1:] = [[rows, *shape[1:]], (raw + raw)[: rows * each]]
        if len(parts[name][2]) != rows * each:
            del parts[name]
    elif how == 3:
        del parts[name]
    elif how == 4:
        parts[draw.choice((name + "x", "x", "bntools.file/config.json", other))] = parts.pop(name)
    elif how == 5 and raw:
        parts[name][2] = (bytewise(raw, draw) + raw)[: len(raw)]
    elif how == 6:
        parts[name][2] = draw.choice((b"\xff", b"\0", b"\x80", b"\x7f\xff", b"\x00\x7c")) * len(raw)
        parts[name][2] = parts[name][2][: len(raw)]
    elif how == 7:
        parts[name], parts[other] = parts[other], parts[name]
    else:
        odd = (["F32", [], b"\0" * 4], ["I64", [0], b""], ["F64", [2, 2], b"\1" * 32], ["U8", [0, 5], b""])
        parts[name] = list(draw.choice((*odd, ["F32", [0, 2**40], b""], ["BOOL", [3], b"\2\1\0"])))


def _count(shape: list[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def joined(meta: dict[str, Any], parts: dict[str, Any]) -> bytes:
    """A safetensors file of metadata and {name: [dtype, shape, bytes]}."""
    head: dict[str, Any] = {"__metadata__": meta}
    position = 0
    for name, (dtype, shape, raw) in parts.items():
        head[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + len(raw)]}
        position += len(raw)
    text = _dumps(head).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(part[2] for part in parts.values())


def inside_gzip(data: bytes, draw: random.Random) -> bytes:
    return gzip.compress(bytewise(gzip.decompress(data), draw), 1, mtime=0)


def inside_zip(data: bytes, draw: random.Random) -> bytes:
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as old,
        zipfile.ZipFile(out, "w", draw.choice((0, 8, 12, 14))) as new,
    ):
        for name in old.namelist():
            raw = old.read(name)
            new.writestr(
                name if draw.random() < 0.9 else name[:-4],
                bytewise(raw, draw) if draw.random() < 0.7 else raw,
            )
    return out.getvalue()


def mutated(data: bytes, ways: tuple[Callable[[bytes, random.Random], bytes], ...], seed: int) -> bytes:
    """The mutation of a file that a seed stands for: one of the ways of its kind, or bytewise; sometimes both."""
    draw = random.Random(seed)
    way = draw.choice((bytewise, *ways, *ways))
    out = way(data, draw)
    return bytewise(out, draw) if draw.random() < 0.05 else out
