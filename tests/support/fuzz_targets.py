"""What reads each file of tests/core/attacks/samples: the library calls that tools make of it, once each."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from support import fuzz

SAMPLES = Path(__file__).parent.parent / "core" / "attacks" / "samples"
ROWS = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)


class Target(NamedTuple):
    """file: the sample. name: under which its mutation lies in a folder. read: what is done with that file."""

    file: str
    ways: tuple[Callable[..., bytes], ...]
    read: Callable[[Path], Any]
    beside: tuple[str, ...] = ()
    name: str = ""


def _info(path: Path) -> None:
    from rich.console import Console

    from bntools.core.model.open import open_input
    from bntools.tools.info import command, describe

    opened = open_input(str(path))
    report = describe.describe(opened, "sample", tensors=True, modules=True)
    command._draw(Console(file=io.StringIO(), width=100), report)


def _model(path: Path) -> None:
    """Every tensor of a model, its linears, and whether it is whole."""
    from bntools.core.model import checkpoint
    from bntools.core.model.open import open_model

    model = open_model(str(path))
    for name in model.entries:
        model.tensor(name, torch.float32)
    model.bits_per_weight()
    checkpoint.check(model)
    assert isinstance(model.linears, dict)


def _stack(path: Path) -> None:
    from bntools.core.model.open import open_input
    from bntools.tools.info import stacks

    stacks.describe(open_input(str(path)), str(path), "20kB,1GB", True, None)


def _build(path: Path) -> None:
    from bntools.core.model.open import open_model

    open_model(str(path.parent)).build(torch.float32)


def _shards(path: Path) -> None:
    from bntools.core.model import folders
    from bntools.core.model.open import open_model

    folders.check_folder(path.parent)
    model = open_model(str(path))
    assert model.entries


def _tokenizer(path: Path) -> None:
    from bntools.core.text.tokens import open_tokenizer

    files = {name: (path.parent / name).read_bytes() for name in ("tokenizer.json", "tokenizer_config.json")}
    open_tokenizer(files, {}, "sample").ids("the end of it")


def _activations(path: Path) -> None:
    from bntools.core.datasets.activations import open_activations

    with open_activations(str(path)) as opened:
        opened.load("keep")


def _points(path: Path) -> None:
    from bntools.tools.data_dim import points

    array, precision, _ = points.read(str(path), None)
    points.clean(array, precision)


def _labelled(path: Path) -> None:
    from bntools.core.datasets import labelled

    labelled.read(str(path))


def _idx(path: Path) -> None:
    from bntools.core.datasets import labelled

    labelled.read_idx(path)


def _table(path: Path) -> None:
    from bntools.core.datasets.tables import open_table

    with open_table(str(path)) as table:
        for block in table.blocks():
            assert len(block.positions) == block.values.shape[1]
        for name in table.names[:16]:
            table.column(name)


def _dictionary(path: Path) -> None:
    from bntools.core.methods import sparse_dictionary
    from bntools.core.model.open import open_input

    dictionary = sparse_dictionary.open_dictionary(open_input(str(path)), "sample")
    sparse_dictionary.check_fits(dictionary, {}, 8, "rows", False)
    dictionary.decode(dictionary.encode(ROWS))


def _codes(path: Path) -> None:
    from bntools.core.artifact.reader import open_path
    from bntools.core.methods.sparse_codes import Codes

    with open_path(path) as file:
        assert list(Codes(file).batches(16))


def _index(path: Path) -> None:
    from bntools.core.artifact.reader import open_path
    from bntools.core.methods.vector_index import searching, storage

    with open_path(path) as file:
        found = storage.read(file)
    if found.width == 8:
        searching.search(found, ROWS, min(3, len(found)))


def _lexicon(path: Path) -> None:
    from bntools.core.artifact.reader import open_path
    from bntools.core.methods.vector_index import lexicon

    with open_path(path) as file:
        found = lexicon.read(file)
    if found.width == 8:
        lexicon.search(found, ROWS, min(3, len(found)))


def _cbm(path: Path) -> None:
    from bntools.core.artifact.reader import open_path
    from bntools.core.methods.cbm import file

    with open_path(path) as opened:
        model = file.read(opened)
    if model.vectors.shape[1] == 12:
        model.predict(np.hstack([ROWS, ROWS[:, :4]]))


def _energies(path: Path) -> None:
    from bntools.core.artifact.reader import open_path
    from bntools.core.methods.cbm.energy import file, inference

    with open_path(path) as opened:
        model = file.read(opened)
    if model.width == 12:
        inference.infer(model, np.hstack([ROWS, ROWS[:, :4]]))


def _motif(path: Path) -> None:
    from bntools.core.artifact.reader import open_path
    from bntools.core.methods.cbm.sequence import file
    from bntools.core.methods.cbm.sequence.model import predict

    with open_path(path) as opened:
        model = file.read(opened)
    if model.vectors.shape[1] == 8:
        predict(model, model.scores(ROWS), np.array([0, len(ROWS)]))


def _corrector(path: Path) -> None:
    from bntools.core.artifact.reader import open_path
    from bntools.tools.cost_fpga import corrector, network

    net = {"layers": [{"type": "dense", "inputs": 16, "outputs": 8}, {"type": "relu"}]}
    with open_path(path) as file:
        found = corrector.read_corrector(file)
    found.predict([network.parse_network(net, "net")])


def _dump(path: Path) -> None:
    from bntools.core.information import epochs

    dump = epochs.open_dump(str(path))
    for place in dump.places:
        place.read()
    assert dump.layers


def _network(path: Path) -> None:
    from bntools.core.artifact.reader import open_path
    from bntools.core.model import subspace

    with open_path(path) as file:
        subspace.open_network(file)


def _pairs(path: Path) -> None:
    from bntools.tools.bleu_gpu import stream

    with path.open("rb") as file:
        list(stream.pairs(file))


def _runs(path: Path) -> None:
    from bntools.tools.scale_fit import runs

    runs.read_runs(path.read_bytes().splitlines(), runs.column_names(None))


def _fpga(path: Path) -> None:
    from bntools.core.artifact.reader import parse_json
    from bntools.tools.cost_fpga import first_order, network

    for layer in network.parse_network(parse_json(path.read_bytes(), dict, "net"), "net"):
        first_order.count_layer(layer)


_ST = (fuzz.artifact,)
_MODEL = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "model.safetensors",
)
TARGETS: dict[str, Target] = {
    "grouped": Target("grouped.safetensors", _ST, _model),
    "entropy": Target("entropy.safetensors", _ST, _model),
    "stack": Target("stack.safetensors", _ST, _model),
    "bitstack": Target("bitstack.safetensors", _ST, _model),
    "blocks": Target("stack.safetensors", _ST, _stack),
    "model": Target("model.safetensors", _ST, _shards, _MODEL[:1]),
    "config": Target("config.json", (fuzz.json_text,), _build, _MODEL[4:]),
    "index": Target("model.safetensors.index.json", (fuzz.json_text,), _shards, (_MODEL[0], _MODEL[4])),
    "tokenizer": Target("tokenizer.json", (fuzz.json_text,), _tokenizer, _MODEL[3:4]),
    "gguf": Target("model.gguf", (), _model),
    "activations": Target("activations.safetensors", _ST, _activations),
    "dictionary": Target("sae.safetensors", _ST, _dictionary),
    "codes": Target("codes.safetensors", _ST, _codes),
    "vector index": Target("index.safetensors", _ST, _index),
    "adaptive index": Target("lvq.safetensors", _ST, _index),
    "graph": Target("graph.safetensors", _ST, _index),
    "lexicon": Target("lexicon.safetensors", _ST, _lexicon),
    "cbm": Target("cbm.safetensors", _ST, _cbm),
    "energies": Target("ecbm.safetensors", _ST, _energies),
    "motif": Target("motif.safetensors", _ST, _motif),
    "corrector": Target("corrector.safetensors", _ST, _corrector),
    "dump": Target("dump.safetensors", _ST, _dump),
    "subspace": Target("subspace.safetensors", _ST, _network),
    "idx": Target("train-images.idx", (), _idx),
    "idx.gz": Target("train-images.idx.gz", (fuzz.inside_gzip,), _idx),
    "npy": Target("points.npy", (), _points),
    "npz": Target("points.npz", (fuzz.inside_zip,), _labelled),
    "npz rows": Target("points.npz", (fuzz.inside_zip,), _activations),
    "npz points": Target("points.npz", (fuzz.inside_zip,), _points),
    "npz table": Target("points.npz", (fuzz.inside_zip,), _table),
    "npy table": Target("points.npy", (), _table),
    "artifact table": Target("activations.safetensors", _ST, _table),
    "artifact points": Target("activations.safetensors", _ST, _points),
    "csv": Target("table.csv", (), _table),
    "rows.jsonl": Target("rows.jsonl", (fuzz.json_lines,), _table),
    "parquet": Target("table.parquet", (), _table),
    "pairs": Target("pairs.jsonl", (fuzz.json_lines,), _pairs),
    "runs": Target("runs.jsonl", (fuzz.json_lines,), _runs),
    "network": Target("network.json", (fuzz.json_text,), _fpga),
    **{f"info {name}": Target(f"{name}.safetensors", _ST, _info)
       for name in ("grouped", "stack", "sae", "codes", "index", "cbm", "ecbm", "motif", "dump", "subspace")},
}  # fmt: skip


TOO_FEW = ("npz points", "artifact points")
"""Samples that are whole but refused: several arrays, none of them named, or only one of them points."""


def place(name: str, folder: Path) -> Path:
    """The file to be written in a folder, with what must lie beside it."""
    target = TARGETS[name]
    for other in target.beside:
        shutil.copy(SAMPLES / other, folder / other)
    return folder / target.file


def attempt(name: str, path: Path) -> str:
    """Read what lies there: "read" or "refused", or the type and place of an exception that no user may see."""
    from bntools.core.errors import BnError

    try:
        TARGETS[name].read(path)
    except BnError as error:
        if not error.what or "\n" in error.what or len(error.what) > 600:
            return f"message: {error.what[:200]!r}"
        return "refused" if error.code in (1, 2, 3) else f"exit {error.code}"
    except Exception as error:
        return f"{type(error).__name__} at {_where(error)}: {str(error)[:100]}"
    return "read"


def _where(error: BaseException) -> str:
    spot, trace = "?", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if "/bntools/" in file:
            spot = f"{file.rpartition('/bntools/')[2]}:{trace.tb_lineno}"
        trace = trace.tb_next
    return spot
