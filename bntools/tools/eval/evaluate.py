"""One evaluation: open, score, compare with the reference, and collect the report."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bntools.core import EMBEDDED
from bntools.core.architecture import inputs, linears
from bntools.core.artifact.reader import Artifact, open_path
from bntools.core.artifact.writer import Writer
from bntools.core.datasets import cache
from bntools.core.errors import bad_input, usage
from bntools.core.model.model import Model
from bntools.core.model.open import open_model
from bntools.core.progress import Progress
from bntools.core.text.tokens import Tokenizer, open_tokenizer
from bntools.core.work.shards import Shard
from bntools.tools.eval import choice, encoder
from bntools.tools.eval.parts import Scored
from bntools.tools.eval.text import divergence, perplexity
from bntools.tools.eval.text.head import Head, OwnHead, split
from bntools.tools.eval.text.protocols import DEFAULT_WINDOW, PROTOCOLS, Corpus

_KEPT_REFERENCES = 4
_VERIFIED = 4 << 30  # bytes up to which the recorded sha256 is worth the reading


@dataclass(frozen=True)
class Settings:
    """What to score and how. window None: the protocol's own; tokens None: the whole text; gather: parts to join."""

    protocol: str = "gptq"
    window: int | None = None
    tokens: int | None = 8192
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    gather: tuple[str, ...] = ()


def find_reference(model: Model) -> Model | None:
    """The model this one was made from, by its history, if it is still there and of the same size."""
    stages = [stage for stage in model.history if stage.get("tool") != "export"]
    inputs = stages[0].get("inputs") if stages else None
    if not isinstance(inputs, list) or not inputs or not isinstance(inputs[0], dict):
        return None
    label, size = inputs[0].get("label"), inputs[0].get("bytes")
    if not isinstance(label, str) or not (label == EMBEDDED or Path(label).exists()):
        return None
    original = open_model(label)
    if original.store.nbytes() != size:
        return None
    same = size > _VERIFIED or original.store.sha256() == inputs[0].get("sha256")
    return original if same else None


def evaluate(
    model: Model,
    reference: Model | None,
    documents: list[str],
    tasks: str | None,
    settings: Settings,
    progress: Progress,
) -> dict[str, Any]:
    """The report of kind `eval` for one model."""
    tokenizer = open_tokenizer(model.files, model.config, model.label)
    report: dict[str, Any] = {
        "kind": "eval",
        "model": model.label,
        "bytes": model.store.nbytes(),
        "bits_per_weight": {"linear": model.bits_per_weight(model.linears), "model": model.bits_per_weight()},
    }
    if not linears.model_class(model.config).can_generate():
        return {**report, **_encoder(model, reference, documents, tokenizer, settings, progress)}
    corpus = make_corpus(model, documents, tokenizer, settings)
    if reference is not None:
        _check_vocabularies(model, reference, tokenizer)
    if settings.gather:
        sums, seconds = Scored(model, reference, corpus, settings.dtype).read(settings.gather)
        built = None
    else:
        sums, seconds, built = score(model, reference, corpus, settings, progress)
    report["tokens_per_second"] = round(corpus.tokens / max(seconds, 1e-9), 1)
    losses = sums if isinstance(sums, perplexity.Losses) else sums.losses
    report |= perplexity.report(losses, corpus)
    if isinstance(sums, divergence.Divergence) and reference is not None:
        report |= divergence.report(sums) | {"reference": reference.label}
    if tasks is not None:
        run = built or _build(model, settings)
        report["tasks"] = _tasks(*run, tokenizer, tasks, _longest(model, 1 << 20), progress)
    return report


def score(
    model: Model, reference: Model | None, corpus: Corpus, settings: Settings, progress: Progress
) -> tuple[perplexity.Losses | divergence.Divergence, float, tuple[Any, Head]]:
    """Losses of a corpus or the divergence on it, the seconds that took, and the built model."""
    kept = _reference_run(reference, corpus, settings, progress) if reference else None
    built, head = _build(model, settings)
    began = time.monotonic()
    with progress("scoring", corpus.tokens) as step:
        if kept is None:
            scores = perplexity.score(built, head, corpus, step)
        else:
            scores = divergence.compare(built, head, kept, corpus, step)
    return scores, time.monotonic() - began, (built, head)


def write_part(
    scored: Scored, settings: Settings, shard: Shard, *, place: tuple[str, bool], progress: Progress
) -> dict[str, Any] | None:
    """Score part I of N of the windows and write it; place: target, whether to replace it. Returns the manifest."""
    if not linears.model_class(scored.model.config).can_generate():
        raise usage(f"{scored.model.label} is an encoder: it is not scored in parts", "drop --shard or --on")
    corpus = scored.share(shard)
    if not corpus.windows:
        return scored.write(shard, place, None, 0.0)
    sums, seconds, _ = score(scored.model, scored.reference, corpus, settings, progress)
    return scored.write(shard, place, sums, seconds)


def make_corpus(model: Model, documents: list[str], tokenizer: Tokenizer, settings: Settings) -> Corpus:
    """The text in windows no longer than the model has positions for."""
    window = settings.window or DEFAULT_WINDOW[settings.protocol]
    inputs.refuse_pairs(model.config, model.label)
    corpus = PROTOCOLS[settings.protocol](documents, tokenizer, _longest(model, window), settings.tokens)
    ids = [max(part.ids) for part in corpus.windows if part.ids]
    inputs.check_ids(model.config, ids, tokenizer.size, model.label)
    return corpus


def _longest(model: Model, window: int) -> int:
    return inputs.longest_window(model.config, window)


def _build(model: Model, settings: Settings) -> tuple[Any, Head | OwnHead]:
    built = model.build(settings.dtype, settings.device)
    return built, split(built)


def _reference_run(
    reference: Model, corpus: Corpus, settings: Settings, progress: Progress
) -> divergence.Reference:
    """The reference's states, from the cache or by running it now."""
    path = _reference_path(reference, corpus, settings)
    if path.exists():
        path.touch()
        with open_path(path) as stored:
            return _load(stored)
    built, head = _build(reference, settings)
    with progress("running the reference", corpus.tokens) as step:
        kept = divergence.record(built, head, corpus, step)
    if isinstance(head, Head):
        _store(path, kept)
        cache.keep_newest(path.parent, _KEPT_REFERENCES)
    return kept


def _reference_path(reference: Model, corpus: Corpus, settings: Settings) -> Path:
    identity = [reference.store.sha256(), str(settings.dtype), [(w.ids, w.first) for w in corpus.windows]]
    return (
        cache.cache_dir("references")
        / f"{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]}.safetensors"
    )


def _check_vocabularies(model: Model, reference: Model, tokenizer: Tokenizer) -> None:
    """Raises BnError (exit 3) where two models do not mean the same by an id; rows beyond the ids are padding."""
    sizes = [inputs.vocabulary(which.config) or tokenizer.size for which in (model, reference)]
    other = reference.files.get("tokenizer.json")
    same = other in (None, model.files.get("tokenizer.json"))
    if not same and other is not None:
        theirs = open_tokenizer(reference.files, reference.config, reference.label)
        same = theirs.inner.get_vocab() == tokenizer.inner.get_vocab()
    if not same or (sizes[0] != sizes[1] and min(sizes) < tokenizer.size):
        raise bad_input(
            f"the vocabularies differ: {sizes[0]:,} ids of {model.label}, {sizes[1]:,} of {reference.label}",
            "--against the model this one was made from",
        )


def _store(path: Path, kept: divergence.Reference) -> None:
    head = kept.head
    assert isinstance(head, Head)
    half = head.weight.half()
    exact = torch.equal(half.float(), head.weight.float())
    with Writer(str(path), "reference", force=True) as out:
        out.add("states", kept.states)
        out.add("head.weight", half if exact else head.weight)
        if head.bias is not None:
            out.add("head.bias", head.bias)
        out.describe(
            "head",
            {
                "scale": head.scale,
                "softcap": head.softcap,
                "dtype": str(head.weight.dtype).removeprefix("torch."),
            },
        )


def _load(stored: Artifact) -> divergence.Reference:
    facts = stored.json("bntools.head", dict)
    weight = stored.tensor("head.weight").to(getattr(torch, facts["dtype"]))
    bias = stored.tensor("head.bias") if "head.bias" in stored.entries else None
    return divergence.Reference(stored.tensor("states"), Head(weight, bias, facts["scale"], facts["softcap"]))


def _encoder(
    model: Model,
    reference: Model | None,
    documents: list[str],
    tokenizer: Tokenizer,
    settings: Settings,
    progress: Progress,
) -> dict[str, Any]:
    if reference is None:
        raise bad_input(
            f"{model.label} is an encoder: it is scored only against a reference", "--against MODEL"
        )
    lines = encoder.sentences(documents, settings.tokens, tokenizer, _longest(model, 256))
    total = sum(map(len, lines))
    vectors = []
    for which in (model, reference):
        built = which.build(settings.dtype, settings.device)
        with progress("embedding", total) as step:
            vectors.append(encoder.embed(built, lines, step))
        del built
    return {**encoder.report(*vectors), "tokens": total, "protocol": "encoder", "reference": reference.label}


def _tasks(
    built: Any, head: Head | OwnHead, tokenizer: Tokenizer, path: str, longest: int, progress: Progress
) -> dict[str, Any]:
    questions = choice.read_tasks(path)
    with progress("answering", len(questions)) as step:
        return choice.report(list(choice.answer(built, head, tokenizer, questions, longest, step)))
