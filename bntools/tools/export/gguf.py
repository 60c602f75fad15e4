"""GGUF files: names, order and types of the tensors, written one by one."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bntools.core.architecture import linears
from bntools.core.artifact import dtypes, streams
from bntools.core.artifact.writer import STDOUT
from bntools.core.artifact.writer import publish as give_name
from bntools.core.datasets.cache import sha256_file
from bntools.core.errors import require, usage
from bntools.core.model import checkpoint
from bntools.core.model.model import Model
from bntools.tools.export import gguf_blocks
from bntools.tools.export.gguf_metadata import arch_of, metadata, rope_factors
from bntools.tools.export.plan import Grid, Item, Losses, Source, code

_DENSE = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
_ROW_WISE = ("attn_q", "attn_k")  # whose rows llama.cpp orders otherwise, for the llama architecture


class GGUF:
    """Blocks of 32 inputs: groups of any multiple of 32 repeat their scale in each block."""

    name = "gguf"
    lowest_zero = 0

    def impossible(self, source: Source) -> str:
        return "it is a stack of experts" if len(source.spec.shape) != 2 else ""

    def misfit(self, source: Source) -> str:
        inputs = source.shape[1]
        if inputs % gguf_blocks.BLOCK:
            return f"{inputs} inputs are no whole number of blocks of 32"
        if source.width % gguf_blocks.BLOCK:
            return f"groups of {source.width} do not fall on blocks of 32"
        if not gguf_blocks.kind_of(source.grid):
            return f"no block type holds asymmetric codes of {source.spec.bits} bits"
        return "" if source.half else "a scale needs more than float16"

    def nearest_grid(self, source: Source) -> Grid:
        """Blocks of 32 of about the same bits; width 0, dense, where the inputs make no whole blocks."""
        if source.shape[1] % gguf_blocks.BLOCK:
            return Grid(16, 0, True)
        bits = 4 if source.spec.bits <= 4 else 5 if source.spec.bits == 5 else 8
        return Grid(bits, gguf_blocks.BLOCK, bits == 8 or source.spec.symmetric)


@dataclass(frozen=True)
class Stored:
    """One tensor of the file: its name there, block or float type, shape [out, in], and its bytes when asked for."""

    name: str
    kind: str
    shape: tuple[int, ...]
    make: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        size = int(np.prod(self.shape))
        if self.kind in gguf_blocks.BYTES:
            return size // gguf_blocks.BLOCK * gguf_blocks.BYTES[self.kind]
        return size * (4 if self.kind == "F32" else 2)


def contents(model: Model, items: list[Item], losses: Losses) -> list[Stored]:
    """Every tensor of the file, in checkpoint order; nothing is read before `make` is called.

    Raises BnError (exit 2) for an architecture or a tensor that is not written.
    """
    gguf = require("gguf", "gguf")
    config = linears.hf_config(model.config)
    arch = arch_of(model.config)
    kind = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)
    table = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
    tied = bool(config.tie_word_embeddings) and not checkpoint.has_own_head(model)
    stored = []
    for item in items:
        if tied and item.name == checkpoint.HEAD:
            continue
        name = table.get_name(item.name, (".weight", ".bias"))
        if name is None:
            raise usage(f"--to gguf: tensor {item.name!r} has no place in a {arch} file", "--to hf")
        heads = _heads(config, name) if arch == "llama" else 0
        stored.append(_stored(model, item, name, heads, losses))
    factors = rope_factors(config)
    if factors is not None:
        stored.append(Stored("rope_freqs.weight", "F32", factors.shape, lambda: factors))
    return stored


def _heads(config: Any, name: str) -> int:
    part = name.split(".")[-2]
    if part not in _ROW_WISE:
        return 0
    return config.num_attention_heads if part == "attn_q" else config.num_key_value_heads


def _stored(model: Model, item: Item, name: str, heads: int, losses: Losses) -> Stored:
    if item.source is None or item.grid is None or item.grid.width == 0:
        return _dense(model, item, name, heads, losses)
    kind = gguf_blocks.kind_of(item.grid)

    def blocks() -> np.ndarray:
        coded = code(model, item, losses)
        rows = gguf_blocks.encode(coded, kind)
        if kind.endswith("_1"):
            _offsets(coded.dense(), rows, kind, losses)
        return rows if not heads else rows[interleaved(len(rows), heads)]

    return Stored(name, kind, item.source.shape, blocks)


def _offsets(w: Tensor, rows: np.ndarray, kind: str, losses: Losses) -> None:
    """What rounding the offsets to float16 loses."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    losses.offset(w, torch.from_numpy(dequantize(rows, GGMLQuantizationType[kind])))


def _dense(model: Model, item: Item, name: str, heads: int, losses: Losses) -> Stored:
    """A tensor in its own float type where GGUF has it; vectors, as llama.cpp has them, in float32, and so is any other
    type; what was packed, in float16."""
    entry = model.entries[item.name]
    packed = item.source is not None
    own = torch.float16 if packed else dtypes.torch_dtype(entry.dtype)
    dtype = own if len(entry.shape) > 1 and own in _DENSE else torch.float32

    def values() -> np.ndarray:
        w = model.tensor(item.name, torch.float32)
        stored = w.to(dtype)
        if packed:
            losses.add(w, stored.float())
        if heads:
            stored = stored[torch.from_numpy(interleaved(len(stored), heads))]
        raw = stored.contiguous().view(torch.int16) if dtype == torch.bfloat16 else stored.contiguous()
        return raw.numpy()

    return Stored(name, _DENSE[dtype], entry.shape, values)


def interleaved(rows: int, heads: int) -> np.ndarray:
    """Where each row of a llama file's query or key comes from: a head's two halves lie interleaved there."""
    return np.arange(rows).reshape(heads, 2, -1).swapaxes(1, 2).reshape(-1)


def write(model: Model, stored: list[Stored], path: Path, advance: Callable[[int], None]) -> None:
    """Write the file: metadata, then tensor after tensor, each made when its turn comes."""
    gguf = require("gguf", "gguf")
    writer = gguf.GGUFWriter(path, arch_of(model.config))
    for key, value in metadata(model, [tensor.kind for tensor in stored]).items():
        value.add(writer, key)
    for tensor in stored:
        shape = tensor.shape
        dtype = gguf.GGMLQuantizationType[tensor.kind]
        writer.add_tensor_info(tensor.name, shape, np.dtype(np.float32), tensor.nbytes, raw_dtype=dtype)
    with contextlib.closing(writer):
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in stored:
            writer.write_tensor_data(tensor.make())
            advance(tensor.nbytes)
        writer.flush()
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def publish(
    model: Model, stored: list[Stored], output: str, force: bool, advance: Callable[[int], None]
) -> dict[str, Any] | None:
    """Write the file whole or not at all; returns the manifest, None where it was streamed."""
    path = Path(os.path.realpath(output))
    if output != STDOUT and not (path.exists() and not path.is_file()):
        temporary = path.parent / f".{path.name}.tmp-{os.getpid()}"
        try:
            write(model, stored, temporary, advance)
            size, digest = temporary.stat().st_size, sha256_file(temporary)
            give_name(temporary, path, force)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return {"bntools": 1, "kind": "model", "path": str(path), "bytes": size, "sha256": digest}
    with tempfile.TemporaryDirectory() as folder:
        write(model, stored, Path(folder) / "model.gguf", advance)
        source = os.open(f"{folder}/model.gguf", os.O_RDONLY)
        target = 1 if output == STDOUT else os.open(output, os.O_WRONLY)
        try:
            streams.copy_range(source, 0, os.fstat(source).st_size, target, None)
        finally:
            os.close(source)
            if target != 1:
                os.close(target)
    return None
