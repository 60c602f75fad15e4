"""One question about a bottleneck, put to whichever kind it is."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import Any

from bntools.core.errors import usage
from bntools.core.methods.cbm import formats, inputs


@dataclass(frozen=True)
class Question:
    """What is asked: of a row, of all rows (`overall`), of a change, or of corrections by the annotations `intervene`.

    data: path of the rows. given: a concept that is present. patches: path of patch embeddings, and their grid.
    """

    data: str
    row: int = 0
    overall: bool = False
    top: int = 8
    changes: dict[str, float] = field(default_factory=dict)
    given: str | None = None
    intervene: str | None = None
    policy: str | None = None
    budgets: tuple[int, ...] = (1, 2, 5, 10)
    patches: str | None = None
    grid: tuple[int, int] | None = None
    seed: int = 0

    @property
    def truth(self) -> str:
        assert self.intervene is not None
        return self.data if self.intervene == "truth" else self.intervene


def open_both(source: str, question: Question, nec: str | None) -> tuple[Any, Any, str]:
    """The bottleneck, its rows (or sequences), and its kind; options that the kind has no use for are refused."""
    from bntools.core.methods.cbm import score

    with inputs.open_tensors(source) as opened:
        model, kind = formats.read(opened), opened.kind
    _fits(kind, question, nec)
    if nec is not None:
        if nec not in model.heads:
            raise usage(f"--nec {nec}: no such head", f"it has {', '.join(model.heads) or 'one only'}")
        model = model.at(nec)
    if kind == "motif":
        from bntools.core.methods.cbm.sequence.inputs import read_sequences

        rows = read_sequences(question.data)
        score.check_encoder(model.facts, model.vectors.shape[1], rows.rows)
    else:
        rows = inputs.read_embeddings(question.data)
        score.check_encoder(model.facts, model.width if kind == "ecbm" else model.vectors.shape[1], rows)
    for name in (*question.changes, *([] if question.given is None else [question.given])):
        _known(model, name, kind)
    return model, rows, kind


def _fits(kind: str, question: Question, nec: str | None) -> None:
    for value, option, kinds in (
        (nec, "--nec", ("cbm",)), (question.given, "--given", ("ecbm",)), (question.patches, "--patches", ("cbm",)),
        (question.intervene, "--intervene", ("cbm", "ecbm")),
    ):  # fmt: skip
        if value is not None and kind not in kinds:
            raise usage(f"{option} asks nothing of a bottleneck of kind {kind}", f"kinds {', '.join(kinds)}")
    if question.given is not None and not question.overall:
        raise usage("--given is asked of all rows", "--global --given CONCEPT; of one row: --set CONCEPT=1")


def _known(model: Any, name: str, kind: str) -> None:
    if kind == "motif" and name not in model.names and "@" in name:
        name = name.rpartition("@")[0]
    if name not in model.names:
        near = difflib.get_close_matches(name, model.names, 1)
        raise usage(
            f"no concept {name!r}", f"did you mean {near[0]!r}?" if near else "bntools info shows them"
        )


def answer(model: Any, rows: Any, kind: str, question: Question) -> dict[str, Any]:
    """The report of a question (bntools-cbm-explain(1))."""
    return {"cbm": _linear, "ecbm": _energies, "motif": _sequences}[kind](model, rows, question)


def _linear(model: Any, rows: Any, question: Question) -> dict[str, Any]:
    from bntools.tools.cbm_explain import explain
    from bntools.tools.cbm_explain import intervene as change

    if question.intervene is not None:
        truth = inputs.read_truth(question.truth, len(rows.x))
        return change.intervene(model, rows, truth, policy=question.policy or "expected", budgets=question.budgets,
                                seed=question.seed)  # fmt: skip
    if question.overall:
        return explain.overall(model, rows, question.top)
    report = explain.local(model, rows, question.row, question.top)
    if question.patches is not None:
        from bntools.tools.cbm_explain import patches

        embeddings, grid = patches.read_patches(question.patches, question.row, question.grid)
        named = [entry["concept"] for entry in report["contributions"]]
        report["maps"] = patches.concept_maps(model, embeddings, grid, named)
    return change.apply_changes(model, rows, question.row, question.changes) if question.changes else report


def _energies(model: Any, rows: Any, question: Question) -> dict[str, Any]:
    from bntools.tools.cbm_explain import energies

    if question.intervene is not None:
        truth = inputs.read_truth(question.truth, len(rows.x))
        return energies.intervene(model, rows, truth, policy=question.policy or "uncertainty", budgets=question.budgets,
                                  seed=question.seed)  # fmt: skip
    if question.overall:
        return energies.overall(model, rows, question.top, question.given)
    if question.changes:
        return energies.change(model, rows, question.row, question.changes, question.top)
    return energies.local(model, rows, question.row, question.top)


def _sequences(model: Any, rows: Any, question: Question) -> dict[str, Any]:
    from bntools.tools.cbm_explain import sequences

    if question.overall:
        return sequences.overall(model, rows, question.top)
    return sequences.local(model, rows, question.row, question.top, question.changes)
