"""bntools kv-compress: parse, calibrate and plan, or store a prompt's cache."""

from __future__ import annotations

import functools
from typing import Any

import click
from click.core import ParameterSource

from bntools import options, terminal
from bntools.core.errors import usage
from bntools.options import Session

EPILOG = """\b
Examples:
  bntools kv-compress smollm2/ --bits 1.5 -o plan.json
  bntools kv-compress smollm2/ --max-kl 0.02 --calib calib.txt -o plan.safetensors
  bntools kv-compress smollm2/ --plan plan.json --text long.txt -o prompt.kv.safetensors
  bntools eval smollm2/ --kv plan.json --window 4096
"""
_METHODS = (
    "rate",
    "zipvl",
    "zipvl-evict",
    "scalekv",
    "kivi",
    "rotated",
    "h2o",
    "snapkv",
    "pyramidkv",
    "streaming",
)


@click.command(
    "kv-compress", short_help="Plan a key-value cache of few bits, or store a prompt.", epilog=EPILOG
)
@options.input_argument(example="bntools kv-compress smollm2/ --bits 1.5 -o plan.json")
@click.option("--bits", type=float, help="Mean bits a cached value, everything counted.")
@click.option(
    "--bytes", "size", metavar="SIZE", help="In place of --bits: bytes of a cache of --context tokens."
)
@click.option("--max-kl", type=click.FloatRange(0, min_open=True),
              help="In place of --bits: the fewest that hold this divergence on the calibration text.")  # fmt: skip
@click.option("--context", type=click.IntRange(64), default=2048, show_default=True,
              help="Tokens of a window of calibration, and of the cache that --bits counts.")  # fmt: skip
@click.option("--method", type=click.Choice(_METHODS), default="rate", show_default=True,
              help="rate, or a paper or baseline as it is, to be scored.")  # fmt: skip
@click.option("--code", type=click.Choice(["entropy", "fixed"]), default="entropy", show_default=True,
              help="fixed: packed integers, for decoding; entropy: smaller, for what is stored.")  # fmt: skip
@click.option("--sink", type=click.IntRange(0), default=4, show_default=True, help="First tokens kept exact.")
@click.option("--recent", type=click.IntRange(0), default=32, show_default=True,
              help="Newest tokens exact in a live cache, until 32 more are full.")  # fmt: skip
@click.option("--tokens", type=click.FloatRange(0, 1), default=0.25, show_default=True,
              help="Strength of token weights: 0 for retrieval, 0.5 for ordinary text alone.")  # fmt: skip
@click.option("--exact", default="auto", show_default=True, metavar="auto|SHARE",
              help="Of --code fixed: share of tokens kept in 16 bits.")  # fmt: skip
@click.option("--tau", type=click.FloatRange(0, 1, min_open=True), default=0.975, show_default=True,
              help="Of zipvl: share of the attention that the important tokens get.")  # fmt: skip
@click.option("--sparse-prefill", is_flag=True,
              help="Of zipvl: also read the prompt by attention among its important tokens alone.")  # fmt: skip
@click.option("--budget", type=click.FloatRange(0, 1, min_open=True), default=0.25, show_default=True,
              help="Of methods that evict: share of the tokens that stay.")  # fmt: skip
@click.option("--strict", is_flag=True, help="Of scalekv: the paper's roles also where layers show none.")
@click.option(
    "--attention", metavar="FILE", help="Of scalekv: plan from attention.safetensors (map, mass) alone."
)
@click.option(
    "--calib", metavar="FILE", help="Text to calibrate on: .txt or .jsonl.  [default: the embedded one]"
)
@click.option("--calib-tokens", type=click.IntRange(1), default=4096, show_default=True,
              help="Tokens to calibrate on, in windows of --context.")  # fmt: skip
@click.option(
    "--plan", metavar="FILE", help="Store the cache of --text by this plan, in place of making one."
)
@click.option("--text", metavar="FILE", help="With --plan: the prompt.")
@options.output
@options.common
def command(session: Session, source: str, output: str, force: bool, plan: str | None, text: str | None,
            calib: str | None, size: str | None, strict: bool, attention: str | None,
            **given: Any) -> None:  # fmt: skip
    """Plan in how few bits a model's key-value cache is kept, by measurement on a calibration text.

    INPUT is what bntools quantize takes: a directory in Hugging Face layout, an artifact, default: or -. With --method
    scalekv it is a next-scale model, var: the embedded one.
    """
    from bntools.core.artifact.writer import check_target
    from bntools.core.system.sizes import parse_bytes
    from bntools.tools.kv_compress.settings import Settings, validate

    if given["method"] == "scalekv" or source == "var:" or attention is not None:
        _refuse_text_options()
        return _scales(session, source, (given["method"], given["budget"], strict, attention), output, force)
    if (plan is None) != (text is None):
        raise usage(
            "--plan and --text go together: the cache of a text by a plan", "--plan plan.json --text long.txt"
        )
    if not session.dry_run:
        check_target(output, force)
    if plan is not None and text is not None:
        return _store(session, source, (plan, text), output, force)
    asked = None if size is None else (parse_bytes(size), given["context"])
    settings = Settings(size=asked, seed=session.seed, **given)
    validate(settings)
    session.apply()
    return _plan(session, source, (settings, calib), output, force)


def _refuse_text_options() -> None:
    """Options of plans for text say nothing of a next-scale model; named on the command line, they are refused."""
    context = click.get_current_context()
    for name in ("plan", "text", "calib", "calib_tokens", "context", "max_kl", "size", "code", "sink", "recent",
                 "tokens", "exact", "tau", "sparse_prefill"):  # fmt: skip
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = next(p.opts[0] for p in context.command.params if p.name == name)
            raise usage(f"{option} is for language models, not for next-scale models", "leave it out")


def _open(source: str) -> Any:
    from bntools.core.architecture.inputs import refuse_pairs
    from bntools.core.architecture.linears import model_class
    from bntools.core.errors import bad_input
    from bntools.core.model.open import open_model

    model = open_model(source)
    refuse_pairs(model.config, model.label)
    if not model_class(model.config).can_generate():
        raise bad_input(f"{model.label} is an encoder: it has no cache", "name a language model")
    return model


def _ids(model: Any, documents: list[str]) -> list[int]:
    from bntools.core.text.tokens import open_tokenizer

    tokenizer = open_tokenizer(model.files, model.config, model.label)
    start = [] if tokenizer.window_bos is None else [tokenizer.window_bos]
    return start + tokenizer.ids("\n\n".join(documents))


def _plan(session: Session, source: str, how: tuple[Any, str | None], output: str, force: bool) -> None:
    """Make and write a plan."""
    from dataclasses import replace

    import torch

    from bntools.core.architecture.inputs import check_ids, longest_window
    from bntools.core.methods.kv.plan import write_plan
    from bntools.core.text.documents import default_text, read_documents
    from bntools.tools.kv_compress import report
    from bntools.tools.kv_compress.run import make_plan

    settings, calib = how
    model = _open(source)
    ids = _ids(model, [default_text("calib")] if calib is None else read_documents(calib))
    check_ids(model.config, ids, 0, model.label)
    settings = replace(settings, context=longest_window(model.config, settings.context))
    if session.dry_run:
        cost = report.cost(model.config, settings, len(ids))
        return terminal.emit(session, cost, lambda console: report.draw_cost(console, cost))
    history = [*model.history, _stage(session, model)]
    built = model.build(torch.float32, session.torch_device())
    plan = make_plan(built, ids, settings, functools.partial(terminal.progress, session))
    plan.facts["history"] = history
    terminal.manifest(write_plan(plan, output, force))
    if not session.quiet:
        report.draw_plan(terminal.console(stderr=True), plan.facts)
    return None


def _scales(
    session: Session, source: str, how: tuple[str, float, bool, str | None], output: str, force: bool
) -> None:
    """Budgets of a next-scale model, and with the model what they cost."""
    from bntools.core.artifact.targets import check_target, write_durably
    from bntools.tools.kv_compress import next_scale, report

    method, budget, strict, attention = how
    if method != "scalekv":
        raise usage(f"--method {method} is not for next-scale models", "--method scalekv")
    if output != "-" and not session.dry_run:
        check_target(output, force)
    session.apply()
    if attention is not None:
        budgets = next_scale.plan_attention(attention, budget, strict)
    else:
        model = next_scale.open_model(source)
        if session.dry_run:
            budgets = {"kind": "plan", "images": next_scale.CALIBRATION + next_scale.SCORED}
            return terminal.emit(session, budgets, lambda console: report.draw_cost(console, budgets))
        progress = functools.partial(terminal.progress, session)
        budgets = next_scale.score_scales(model, budget, seed=session.seed, strict=strict, progress=progress)
    if not budgets["roles"] and not strict:
        terminal.note(
            session, "no roles: layers differ by chance, and all get the same; --strict keeps the paper's"
        )
    if output != "-":
        import json
        from pathlib import Path

        Path(output).unlink(missing_ok=True)
        write_durably(Path(output), json.dumps(budgets, indent=1).encode() + b"\n")
    terminal.emit(session, budgets, lambda console: report.draw_scales(console, budgets))
    return None


def _stage(session: Session, model: Any) -> dict[str, Any]:
    from bntools.core.model import history

    return history.entry("kv-compress", options.argv(), session.seed, [history.fingerprint(model).result()],
                         session.started)  # fmt: skip


def _store(session: Session, source: str, what: tuple[str, str], output: str, force: bool) -> None:
    """Run the model over a prompt and write its cache."""
    import torch

    from bntools.core.architecture.inputs import check_ids
    from bntools.core.methods.kv.plan import read_plan
    from bntools.core.text.documents import read_documents
    from bntools.tools.kv_compress import report
    from bntools.tools.kv_compress.run import store_prompt

    plan, model = read_plan(what[0]), _open(source)
    ids = _ids(model, read_documents(what[1]))
    check_ids(model.config, ids, 0, model.label)
    session.apply()
    if session.dry_run:
        cost = report.prompt_cost(plan.facts, len(ids))
        return terminal.emit(session, cost, lambda console: report.draw_cost(console, cost))
    history = [*model.history, _stage(session, model)]
    built = model.build(torch.float32, session.torch_device())
    cache, row = store_prompt(built, plan, ids)
    manifest = cache.save(output, row, force, history)
    terminal.manifest(manifest)
    if not session.quiet:
        report.draw_prompt(terminal.console(stderr=True), cache, len(ids))
    return None
