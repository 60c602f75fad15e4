"""Build a bottleneck: bank, selection, method, baselines, and the report of all of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import bad_input, usage
from bntools.core.methods.cbm import inputs
from bntools.core.methods.cbm.bottleneck import Bottleneck, Floats, unit
from bntools.core.methods.cbm.inputs import Embeddings, Truth
from bntools.core.progress import Progress
from bntools.kernels.linear.design import FactoredDesign, Standard
from bntools.kernels.linear.softmax import Labels
from bntools.tools.cbm_build.banks import bank as banks
from bntools.tools.cbm_build.banks import select
from bntools.tools.cbm_build.banks.bank import Bank
from bntools.tools.cbm_build.baselines import baselines
from bntools.tools.cbm_build.methods import dn, lf, method
from bntools.tools.cbm_build.settings import Settings
from bntools.tools.cbm_build.training import Head, Training, divide


@dataclass(frozen=True)
class Sources:
    """What a build reads. concepts: embeddings of concept names; owner [K, C]: the classes each was written for.

    codes: a sparse dictionary, and vocabulary: embeddings of words to name its latents (dn). teacher: the rows of data
    in the concepts' space (lf). sequences: the same windows as sequences (motif).
    """

    data: Embeddings
    concepts: Embeddings | None = None
    owner: NDArray[np.int64] | None = None
    truth: Truth | None = None
    class_embeddings: Embeddings | None = None
    class_names: list[str] | None = None
    codes: Any = None
    vocabulary: Embeddings | None = None
    teacher: Embeddings | None = None
    sequences: Any = None


def build(sources: Sources, settings: Settings, progress: Progress) -> tuple[Bottleneck, dict[str, Any]]:
    """The bottleneck and its report (bntools-cbm-build(1)). Raises BnError where inputs do not fit each other."""
    if settings.layer == "codes":
        settings = replace(settings, normalize=False)  # a dictionary reads rows as they are
    training, facts = prepare(sources, settings)
    training, dropped, pool = choose(training, settings)
    head = method(settings.method)(training, settings, progress)
    model = assemble(training, head, settings, facts["labels"])
    compared, maps = baselines(training, head, pool, settings, progress)
    model = replace(model, baselines=maps)
    report = _report(training, model, head, settings)
    report |= {"baselines": compared, "dropped": dropped, "concept_quality": facts["quality"]}
    model.facts.update(
        method=settings.method, encoder=encoder_of(sources.data), path=report["path"], notes=report["notes"],
        seed=settings.seed, bank=settings.layer,
    )  # fmt: skip
    return model, report


def prepare(sources: Sources, settings: Settings) -> tuple[Training, dict[str, Any]]:
    """Check what was read, number the classes, divide the rows, make the bank of all concepts."""
    data = sources.data
    labels, y = np.unique(data.need_labels(), return_inverse=True)
    if len(labels) < 2:
        raise bad_input(f"{data.label} has one class, {labels[0]}", "a bottleneck tells classes apart")
    names = _class_names(sources, labels)
    part, held = divide(y, settings.validation, settings.seed)
    embeddings = unit(data.x) if settings.normalize else data.x
    bank, quality = _layer(sources, settings, embeddings, (part, held), labels)
    classes = _class_vectors(sources, names, settings)
    training = Training(embeddings, y.astype(np.int64), names, bank, part, held, classes)
    return training, {"labels": labels.astype(np.int64), "quality": quality}


def _layer(
    sources: Sources, settings: Settings, embeddings: Floats, rows: tuple[Any, Any], labels: NDArray[np.int64]
) -> tuple[Bank, list[dict[str, Any]]]:
    """The bank of all concepts, and what is known of how well each is read."""
    if settings.layer == "codes":
        if sources.codes is None:
            raise usage(
                "--method dn needs a sparse dictionary", "--codes FILE: bntools sparse-code makes one"
            )
        return dn.concept_layer(sources.codes, sources.vocabulary, embeddings, settings.name_cosine)
    if settings.layer == "cav":
        if sources.truth is None:
            if settings.method == "ecbm":
                raise usage("--method ecbm learns concepts from annotations", "--truth FILE")
            raise usage("--bank cav fits concepts to annotations", "--truth FILE, or --bank text")
        return banks.cav_bank(embeddings, sources.truth, rows[0])
    if settings.layer == "label-free":
        if sources.teacher is None:
            what = "--method lf reads concepts of another encoder from the embeddings"
            raise usage(what, "--teacher FILE: the same rows by the encoder of --concepts")
        bank = _text(sources, settings, labels, sources.teacher)
        return lf.concept_layer(embeddings, sources.teacher.x, bank, rows)
    bank = _text(sources, settings, labels, sources.data)
    return (bank if sources.truth is None else banks.with_levels(bank, embeddings, sources.truth)), []


def _text(sources: Sources, settings: Settings, labels: NDArray[np.int64], data: Embeddings) -> Bank:
    concepts = sources.concepts
    if concepts is None:
        raise usage("no concepts", "--concepts FILE: embeddings of their names, or --bank cav --truth FILE")
    pair = (data.label, concepts.label)
    inputs.same_encoder(data.facts, concepts.facts, pair)
    inputs.same_width(data.x.shape[1], concepts.x.shape[1], pair)
    owner = sources.owner
    if owner is not None:
        if owner.shape[0] != len(concepts.x) or owner.shape[1] < len(labels):
            what = f"{concepts.label}: owner {list(owner.shape)} for {len(concepts.x)} concepts, {len(labels)} classes"
            raise bad_input(what, "owner [concepts, classes] of 0 and 1")
        owner = (owner[:, labels] if labels.max() < owner.shape[1] and labels.min() >= 0 else owner) > 0
    return banks.text_bank(unit(concepts.x) if settings.normalize else concepts.x, concepts.names, owner)


def _class_names(sources: Sources, labels: NDArray[np.int64]) -> list[str]:
    names = sources.class_names or sources.data.facts.get("classes")
    if isinstance(names, list) and len(names) == len(labels):
        return [str(name) for name in names]
    if isinstance(names, list) and labels.min() >= 0 and labels.max() < len(names):
        return [str(names[label]) for label in labels]
    if names:
        raise bad_input(
            f"{len(names)} class names for labels {labels.min()} to {labels.max()}", "one a class"
        )
    return [f"class {label}" for label in labels]


def _class_vectors(sources: Sources, names: list[str], settings: Settings) -> Floats | None:
    given = sources.class_embeddings
    if given is None:
        return None
    inputs.same_encoder(sources.data.facts, given.facts, (sources.data.label, given.label))
    inputs.same_width(sources.data.x.shape[1], given.x.shape[1], (sources.data.label, given.label))
    if set(names) <= set(given.names):
        rows = [given.names.index(name) for name in names]
    elif len(given.x) == len(names):
        rows = list(range(len(names)))
    else:
        raise bad_input(
            f"{given.label} has {len(given.x)} rows for {len(names)} classes", "one row a class, named"
        )
    return unit(given.x[rows]) if settings.normalize else given.x[rows]


def choose(training: Training, settings: Settings) -> tuple[Training, dict[str, int], Bank]:
    """Drop duplicates and concepts that name a class, then select; also the pool that was selected from."""
    bank = training.bank
    dropped = {"duplicates": 0, "class_names": 0}
    if settings.layer in ("text", "label-free"):
        leaks = np.zeros(len(bank), bool)
        if not settings.keep_class_names:
            leaks = select.names_a_class(bank.names, training.classes)
        bank = bank.at(~leaks)
        again = select.duplicates(bank.vectors, settings.dedup)
        dropped = {"duplicates": int(again.sum()), "class_names": int(leaks.sum())}
        bank = bank.at(~again)
    if not len(bank):
        raise bad_input("no concept is left", "--keep-class-names, or other concepts")
    pool, classes = bank, len(training.classes)
    if settings.select == "labo" and settings.layer in ("text", "label-free"):
        owner = bank.owner if bank.owner is not None else np.zeros((len(bank), classes), bool)
        if settings.per_class * classes < len(bank) or bank.owner is not None:
            bank = bank.at(select.labo(bank.vectors, training.centroids, owner, settings.per_class))
    elif settings.select == "random":
        bank = bank.at(select.random(settings.per_class * classes, len(bank), settings.seed))
    return training.with_bank(bank), dropped, pool


def assemble(training: Training, head: Head, settings: Settings, labels: NDArray[np.int64]) -> Bottleneck:
    """The model of a method's head, with the statistics of its training scores."""
    bank = head.bank or training.bank
    count = len(bank)
    if head.raw:
        standard = Standard(np.zeros(count), np.ones(count))
    elif head.bank is None:
        standard = training.design.standard
    else:
        standard = FactoredDesign(training.embeddings, bank.vectors).standard
    mean = standard.mean + (bank.offsets if bank.activation == "linear" and not head.raw else 0)
    std = np.where(standard.inverse > 0, 1 / np.where(standard.inverse > 0, standard.inverse, 1), 0)
    share = Labels.tally(training.y, len(training.classes))
    model = Bottleneck(
        vectors=bank.vectors, offsets=bank.offsets, mean=mean.astype(np.float32), std=std.astype(np.float32),
        weight=head.weight, bias=head.bias, names=bank.names, classes=training.classes, labels=labels,
        class_mean=np.zeros((len(training.classes), count), np.float32), levels=bank.levels,
        counts=np.bincount(training.y, minlength=len(share.share)), scale=np.ones(count, np.float32),
        activation=bank.activation, theta=bank.theta, normalize=settings.normalize, residual=head.residual,
        heads={str(point.nec): (point.fit.weight, point.fit.bias) for point in head.points},
    )  # fmt: skip
    return replace(model, class_mean=_class_means(model, training))


def _class_means(model: Bottleneck, training: Training) -> Floats:
    if model.activation == "linear":
        return model.standardise(training.centroids @ model.vectors.T + model.offsets)
    scores = model.concepts(training.embeddings)
    return np.stack([scores[training.y == c].mean(0) for c in range(len(training.classes))]).astype(
        np.float32
    )


def _report(training: Training, model: Bottleneck, head: Head, settings: Settings) -> dict[str, Any]:
    path = [
        {"nec": p.nec, "weights": int((p.fit.weight != 0).sum()), "l2": p.l2,
         "validation_accuracy": _number(p.validation)}
        for p in head.points
    ]  # fmt: skip
    order = np.argsort(-np.abs(model.weight), axis=1, kind="stable")[:, :5]
    top = {
        name: [
            [model.names[k], round(float(model.weight[c, k]), 4)] for k in order[c] if model.weight[c, k] != 0
        ]
        for c, name in enumerate(model.classes)
    }
    return {
        "kind": "cbm-build", "method": settings.method, "rows": len(training.y), "validation_rows": len(training.held),
        "dimensions": training.embeddings.shape[1], "classes": len(model.classes), "concepts": len(model.names),
        "constant_concepts": int((model.std == 0).sum()), "nec": model.nec, "notes": head.notes,
        "train_accuracy": float((model.predict(training.embeddings) == training.y).mean()), "path": path, "top": top,
    }  # fmt: skip


def encoder_of(data: Embeddings) -> dict[str, Any]:
    """What the data say of their encoder, to hold other data against."""
    return {key: data.facts[key] for key in ("encoder", "model", "sha256") if data.facts.get(key)}


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value
