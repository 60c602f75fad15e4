"""From a model and its inputs to a written artifact of activations."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from bntools.core.architecture.linears import model_class
from bntools.core.artifact.reader import Artifact
from bntools.core.datasets.activations_writer import ActivationsWriter
from bntools.core.datasets.static_table import StaticTable
from bntools.core.errors import bad_input, usage
from bntools.core.model.model import Model
from bntools.core.model.subspace import network_facts, open_network
from bntools.core.progress import Progress
from bntools.core.text.tokens import Tokenizer, open_tokenizer
from bntools.core.work.shards import Shard
from bntools.tools.embed import images
from bntools.tools.embed.settings import Settings
from bntools.tools.embed.states import Piece, batches_of, document_rows, text_rows, token_rows
from bntools.tools.embed.texts import pack, read_texts, separate

_NAME_LENGTH = 120
_STATIC_BATCH = 4096


class Plan(NamedTuple):
    """Rows to come: how many, their width, what is known of them, and a generator of pieces."""

    rows: int
    width: int
    facts: dict[str, Any]
    pieces: Iterator[Piece]


def is_causal(model: Model) -> bool:
    """Whether a model predicts the next token, so that each token is a row of its own."""
    name = model_class(model.config).__name__
    return "CausalLM" in name or "LMHead" in name


def plan_static(table: StaticTable, source: str, settings: Settings, shard: Shard | None) -> Plan:
    """A row a text: the mean of its token rows."""
    texts = read_texts(source, settings.field, lines=True)[: settings.limit]
    chosen = shard.of([1] * len(texts)) if shard else range(len(texts))

    def pieces() -> Iterator[Piece]:
        for start in range(chosen.start, chosen.stop, _STATIC_BATCH):
            stop = min(start + _STATIC_BATCH, chosen.stop)
            rows = torch.from_numpy(table.embed(texts[start:stop]))
            if settings.normalize:
                rows = torch.nn.functional.normalize(rows, dim=1)
            names = [text[:_NAME_LENGTH] for text in texts[start:stop]]
            yield Piece([rows], {"doc": np.arange(start, stop, dtype=np.int32), "names": names})

    facts = {"model": table.label, "sha256": table.sha256, "site": "table", **_pooled(settings, "mean")}
    return Plan(len(chosen), table.table.shape[1], facts, pieces())


def plan_texts(model: Model, source: str, settings: Settings, shard: Shard | None, device: str) -> Plan:
    """A row a token of a causal model; a row a text of an encoder, or with per = document."""
    tokenizer = open_tokenizer(model.files, model.config, model.label)
    causal = is_causal(model)
    if settings.layers and max(settings.layers) > depth(model):
        raise usage(
            f"--layer {max(settings.layers)}: {model.label} has {depth(model)} blocks", "--layer 1 to that"
        )
    if causal and settings.per == "token":
        return _plan_tokens(model, tokenizer, source, settings, shard, device)
    texts = read_texts(source, settings.field, lines=True)
    facts = {**_facts(model, settings), **_pooled(settings, settings.pool)}
    names = [text[:_NAME_LENGTH] for text in texts]
    if causal:
        batches = batches_of(separate(texts, tokenizer, _window(model, settings)), 1)
        chosen = shard.of([1] * len(batches)) if shard else range(len(batches))
        made = lambda m: document_rows(m, batches[chosen.start : chosen.stop], settings)  # noqa: E731
    else:
        longest = min(settings.window, _longest(model))
        ids = [tokenizer.inner.encode(text).ids[:longest] or [0] for text in texts]
        chosen = shard.of([1] * len(ids)) if shard else range(len(ids))
        part = ids[chosen.start : chosen.stop]
        pad = int(model.config.get("pad_token_id") or 0)
        made = lambda m: _shifted(text_rows(m, part, pad, settings), chosen.start)  # noqa: E731
    built = model.build(getattr(torch, settings.compute), device)

    def pieces() -> Iterator[Piece]:
        for piece in made(built):
            docs = piece.columns["doc"]
            yield Piece(piece.states, {**piece.columns, "names": [names[i] for i in docs]})

    ordered = pieces() if causal else _in_order(pieces(), len(chosen), chosen.start)
    return Plan(len(chosen), hidden_size(model), facts, ordered)


def _plan_tokens(
    model: Model, tokenizer: Tokenizer, source: str, settings: Settings, shard: Shard | None, device: str
) -> Plan:
    texts = read_texts(source, settings.field, lines=False)
    window = _window(model, settings)
    batches = batches_of(pack(texts, tokenizer, window, settings.limit), settings.batch_tokens)
    if shard:
        chosen = shard.of([batch.ids.size for batch in batches])
        batches = batches[chosen.start : chosen.stop]
    facts = {**_facts(model, settings), "window": window, "documents": len(texts)}

    def pieces() -> Iterator[Piece]:
        built = model.build(getattr(torch, settings.compute), device)
        yield from token_rows(built, batches, settings)

    return Plan(sum(batch.ids.size for batch in batches), hidden_size(model), facts, pieces())


def plan_images(opened: Any, spec: str, source: str, settings: Settings, split: str) -> Plan:
    """A row an image: `pixels:`, an artifact of a small network, or a vision model."""
    pictures = images.find(source, split)
    if isinstance(opened, Artifact):
        facts = network_facts(opened)
        norm = (float(facts["mean"]), float(facts["std"]))
        layer = settings.layers[0] if settings.layers else 0
        pieces = images.network_rows(open_network(opened), pictures, norm, layer)
        known = {"model": spec, "sha256": opened.sha256(), "site": "resid", "layer": layer}
    elif opened is None:
        pieces, known = images.pixel_rows(pictures, 0), {"model": spec, "site": "pixels"}
    else:
        folder = opened.path if opened.path is not None and opened.path.is_dir() else Path()
        prepare = images.read_prepare(folder, opened.config)
        pieces = images.vision_rows(opened.build(torch.float32), pictures, prepare, settings)
        known = _facts(opened, settings)
    if pictures.classes:
        known["classes"] = pictures.classes
    return Plan(len(pictures), 0, known, pieces)


def write(
    plan: Plan, target: str, settings: Settings, *, history: list[dict[str, Any]], force: bool, progress: Progress
) -> tuple[ActivationsWriter, int]:  # fmt: skip
    """Write the rows of a plan; (the writer, with its manifest; rows that were not finite). Memory holds a batch."""
    facts, bad = dict(plan.facts), 0
    if not plan.rows:
        raise usage("no rows in this part", "fewer parts: a batch of windows is not divided")
    if len(settings.layers) > 1:
        facts["tensors"] = {settings.tensor(i): {"layer": layer} for i, layer in enumerate(settings.layers)}
    writer = ActivationsWriter(target, facts=facts, history=history, dtype=settings.dtype, force=force)
    with writer as out, progress("rows", plan.rows) as advance:
        for piece in plan.pieces:
            bad += sum(int((~torch.isfinite(s).all(1)).sum()) for s in piece.states)
            out.add({settings.tensor(i): states for i, states in enumerate(piece.states)}, piece.columns)
            advance(len(piece.states[0]))
    return writer, bad


def depth(model: Model) -> int:
    """Number of blocks by the config."""
    for key in ("num_hidden_layers", "n_layer", "num_layers"):
        if isinstance(model.config.get(key), int):
            return model.config[key]
    raise bad_input(f"{model.label}: config.json names no number of layers")


def hidden_size(model: Model) -> int:
    for key in ("hidden_size", "n_embd", "d_model"):
        if isinstance(model.config.get(key), int):
            return model.config[key]
    return 0


def _longest(model: Model) -> int:
    return int(model.config.get("max_position_embeddings") or model.config.get("n_positions") or 1 << 30)


def _window(model: Model, settings: Settings) -> int:
    return min(settings.window, _longest(model))


def _facts(model: Model, settings: Settings) -> dict[str, Any]:
    label = str(model.path) if model.path and not model.label.endswith(":") else model.label
    facts = {"model": label, "sha256": model.store.sha256(), "site": settings.site}
    if len(settings.layers) == 1:
        facts["layer"] = settings.layers[0]
    if not settings.layers:
        facts["site"] = "output"
    return facts


def _pooled(settings: Settings, how: str) -> dict[str, Any]:
    return {"pooled": how, "normalized": settings.normalize}


def _shifted(pieces: Iterator[Piece], start: int) -> Iterator[Piece]:
    for piece in pieces:
        yield Piece(piece.states, {**piece.columns, "doc": piece.columns["doc"] + np.int32(start)})


def _in_order(pieces: Iterator[Piece], rows: int, start: int) -> Iterator[Piece]:
    """Rows that came sorted by length, put back in the order of the texts; all are in memory meanwhile."""
    states: list[torch.Tensor] = []
    names = np.empty(rows, object)
    for piece in pieces:
        docs = torch.from_numpy(piece.columns["doc"].astype(np.int64)) - start
        if not states:
            states = [torch.empty(rows, s.shape[1]) for s in piece.states]
        for target, part in zip(states, piece.states, strict=True):
            target[docs] = part.float()
        names[docs.numpy()] = piece.columns["names"]
    yield Piece(states, {"doc": np.arange(start, start + rows, dtype=np.int32), "names": list(names)})


def digest(path: str) -> str | None:
    """sha256 of an input text, None of a stream."""
    if path == "-" or not Path(path).is_file():
        return None
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
