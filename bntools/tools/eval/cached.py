"""eval --kv: what a compressed key-value cache costs, in place of what a compressed model costs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from bntools import terminal
from bntools.core.errors import GATE, BnError, usage
from bntools.options import Session

_UNUSED = ("tasks", "data", "file", "assignments", "curve", "plot", "budget", "shard", "gather", "max_ppl")
_WINDOW = 2048


def option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --kv; with it the callback is not called."""

    @functools.wraps(function)
    def wrapped(session: Session, source: str, kv: str | None, **given: Any) -> Any:
        if kv is None:
            return function(session=session, source=source, **given)
        return _score(session, source, kv, given)

    return click.option(
        "--kv",
        metavar="FILE",
        help="Score a plan of bntools kv-compress: a cache of few bits against the exact one.",
    )(wrapped)


def _score(session: Session, source: str, kv: str, given: dict[str, Any]) -> None:
    """Windows of --window tokens, so many as --tokens of the text hold."""
    from bntools import options
    from bntools.core.architecture.inputs import check_ids, longest_window
    from bntools.core.methods.kv import score
    from bntools.core.methods.kv.plan import check_model, read_plan
    from bntools.core.model.open import open_model
    from bntools.core.text.documents import default_text, read_documents
    from bntools.core.text.tokens import open_tokenizer

    named = [name for name in _UNUSED if given.get(name)]
    if named:
        raise usage("--kv scores a cache on text alone", f"drop --{named[0].replace('_', '-')}")
    plan, model = read_plan(kv), open_model(source)
    documents = [default_text("eval")] if given["text"] is None else read_documents(given["text"])
    tokenizer = open_tokenizer(model.files, model.config, model.label)
    start = [] if tokenizer.window_bos is None else [tokenizer.window_bos]
    ids = start + tokenizer.ids("\n\n".join(documents))
    check_ids(model.config, ids, tokenizer.size, model.label)
    window = longest_window(model.config, given["window"] or _WINDOW)
    windows = score.windows_of(ids, window, max(given["tokens"], window))
    session.apply()
    if session.dry_run:
        report = {
            "kind": "plan",
            "windows": len(windows),
            "window": window,
            "scored": len(windows[0].following),
        }
        rows = [[key, str(value)] for key, value in report.items() if key != "kind"]
        return terminal.emit(
            session, report, lambda console: console.print(terminal.table(["plan", "value"], rows))
        )
    built = model.build(options.torch_dtype(given["dtype"]), session.torch_device())
    check_model(plan.facts["model"], built, kv)
    with terminal.progress(session, "scoring", len(windows)) as step:
        report = score.score(built, plan, windows, step) | {"model": model.label, "plan": kv,
                                                            "predicted_kl": plan.facts["predicted_kl"]}  # fmt: skip
    terminal.emit(session, report, lambda console: draw(console, report))
    most = given["max_kl"]
    if most is not None and not report["kl"] <= most:
        raise BnError(f"divergence {report['kl']:.4g} is over --max-kl {most:g}", "", GATE)
    return None


def draw(console: Any, report: dict[str, Any]) -> None:
    """The plan beside the baselines, the exact cache first."""
    three = terminal.three

    def row(name: str, one: dict[str, Any]) -> list[str]:
        change, above = one["delta_nll"], one["copy_above_full"]
        return [name, three(one["bits_per_value"]), three(one["kl"]), three(one["kl_se"]), three(change["mean"]),
                three(above["mean"]), three(above["se"])]  # fmt: skip

    rows = [["exact, 16 bits", "16.0", "0", "", "0", "0", ""]]
    rows += [row(name, one) for name, one in report["baselines"].items()]
    if report["sparse_prefill"] is not None:
        rows.append(row("this plan's codes alone", report["sparse_prefill"]["codes"]))
        rows.append(row("its sparse prefill alone", report["sparse_prefill"]["prefill"]))
    rows.append(row(f"this plan ({report['method']})", report))
    heads = ["cache", "bits/value", "KL", "± se", "Δ loss", "copy loss above", "± se"]
    console.print(terminal.table(heads, rows))
    console.print(
        f"{report['model']}: {report['windows']} windows of {report['window']:,} tokens, {report['scored']} scored; "
        f"{terminal.megabytes(report['cache_bytes'])} of {terminal.megabytes(report['cache_bytes_fp16'])}, "
        f"{report['ratio']:.1f} times smaller; copy loss of the exact cache {three(report['copy_nll_full']['mean'])}"
    )
