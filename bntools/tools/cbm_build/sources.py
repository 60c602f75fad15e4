"""Reading what a build is made of, from the files that the options name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from bntools.core.errors import bad_input, usage
from bntools.core.methods.cbm import inputs
from bntools.tools.cbm_build.build import Sources
from bntools.tools.cbm_build.settings import Settings


class Files(NamedTuple):
    """Paths as the options give them; None where one is not given."""

    data: str
    concepts: str | None = None
    truth: str | None = None
    class_embeddings: str | None = None
    class_names: str | None = None
    codes: str | None = None
    vocabulary: str | None = None
    teacher: str | None = None


def read_sources(files: Files, settings: Settings) -> Sources:
    """Everything, read and held against each other as far as a method needs it. Raises BnError (exit 2, 3)."""
    _used(files, settings)
    sequences = None
    if settings.method == "motif":
        from bntools.core.methods.cbm.sequence.inputs import read_sequences

        sequences = read_sequences(files.data)
        data = sequences.rows
    else:
        data = inputs.read_embeddings(files.data)
    return Sources(
        data,
        inputs.read_embeddings(files.concepts) if files.concepts else None,
        inputs.read_owner(files.concepts) if files.concepts else None,
        None if sequences is not None else _truth(files.truth, files.data, len(data.x)),
        inputs.read_embeddings(files.class_embeddings) if files.class_embeddings else None,
        Path(files.class_names).read_text("utf-8").splitlines() if files.class_names else None,
        _dictionary(files.codes) if files.codes else None,
        inputs.read_embeddings(files.vocabulary) if files.vocabulary else None,
        _teacher(files.teacher, len(data.x)) if files.teacher else None,
        sequences,
    )


def _used(files: Files, settings: Settings) -> None:
    """Refuse (exit 2) files that the method would not look at."""
    for path, option, method in ((files.codes, "--codes", "dn"), (files.vocabulary, "--vocabulary", "dn"),
                                 (files.teacher, "--teacher", "lf")):  # fmt: skip
        if path is not None and settings.method != method:
            raise usage(f"{option} is for --method {method}", f"--method {method}")
    if files.truth is not None and settings.method == "motif":
        raise usage("--method motif takes no annotations", "leave --truth out")


def _truth(truth: str | None, source: str, rows: int) -> Any:
    """Annotations of a file, or of the data itself where it has some."""
    return inputs.read_truth(truth, rows) if truth else inputs.own_truth(source, rows)


def _dictionary(path: str) -> Any:
    from bntools.core.methods import sparse_dictionary

    with inputs.open_tensors(path) as opened:
        return sparse_dictionary.read(opened)


def _teacher(path: str, rows: int) -> inputs.Embeddings:
    teacher = inputs.read_embeddings(path)
    if len(teacher.x) != rows:
        raise bad_input(
            f"{teacher.label} has {len(teacher.x)} rows, the data {rows}", "the same rows, in order"
        )
    return teacher
