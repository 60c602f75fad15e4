"""bntools stack-compress: parse, build the stack or cut one, write."""

from __future__ import annotations

from typing import Any

import click

from bntools import dispatch, options, terminal
from bntools.core import EMBEDDED
from bntools.core.errors import usage
from bntools.options import Session

EPILOG = """\b
Examples:
  bntools stack-compress smollm2/ -o smollm2.stack.safetensors
  bntools eval smollm2.stack.safetensors --budget 90MB
  head -c 90000000 smollm2.stack.safetensors | bntools eval
  bntools stack-compress --truncate 90MB smollm2.stack.safetensors -o small.safetensors
"""


@click.command(
    "stack-compress",
    cls=options.Sectioned,
    short_help="One file, any size: every prefix of it is a model.",
    epilog=EPILOG,
)
@options.input_argument(default=EMBEDDED)
@options.output
@options.section(
    "Size",
    click.option(
        "--truncate",
        metavar="SIZE",
        help="Cut a stack, given as INPUT, to at most so many bytes (90MB, 86MiB), with a header of its own.",
    ),
    click.option(
        "--base",
        type=click.FloatRange(1, 6),
        metavar="BITS",
        default=2.3,
        show_default=True,
        help="Bits a linear weight of the base, the smallest model in the file; about.",
    ),
    click.option(
        "--planes",
        type=click.IntRange(0, 7),
        default=4,
        show_default=True,
        help="Planes over the base, of one bit a weight each.",
    ),
    click.option(
        "--levels",
        type=click.IntRange(1, 64),
        default=8,
        show_default=True,
        help="Levels of a weight under --codec bitstack, the first of them in the base.",
    ),
    click.option(
        "--rank",
        type=click.IntRange(1, 256),
        show_default="4, and 16 under --paper",
        help="Rank of the sizes of a level.",
    ),
    click.option(
        "--embedding/--no-embedding",
        default=None,
        show_default="embedding, and no-embedding under --codec bitstack",
        help="The embedding and the output head are stacks as well, or kept as they are.",
    ),
)
@options.section(
    "Method",
    click.option(
        "--codec",
        type=click.Choice(["planes", "bitstack"]),
        default="planes",
        show_default=True,
        help="An entropy-coded base and planes of one bit a weight, or levels of signs and low-rank sizes.",
    ),
    click.option(
        "--scaling",
        type=click.Choice(["none", "official", "rms"]),
        show_default="rms, and official under --paper",
        help="Scales of the inputs under --codec bitstack: none, mean 2-norms over a window, or root mean squares.",
    ),
    click.option(
        "--paper",
        is_flag=True,
        help="--codec bitstack as its authors' program has it: scales fused into norms and neighbours.",
    ),
    click.option(
        "--compensate/--no-compensate",
        default=None,
        show_default="with --codec planes, made whole",
        help="Base and first plane of each linear are each aimed at the original's outputs for what the layers coded "
        "before it give at that size.",
    ),
    click.option(
        "--sort",
        type=click.Choice(["fisher", "output-error", "layer", "perplexity"]),
        default="fisher",
        show_default=True,
        help="Order of the blocks: by the predicted decrease of the loss a byte, by that of a matrix' relative output "
        "error, as in the checkpoint, or by the measured perplexity (slow).",
    ),
    click.option(
        "--rescore",
        type=click.IntRange(0, 64),
        metavar="N",
        default=4,
        show_default=True,
        help="Sizes at which --sort fisher measures by a gradient what each block brings; the model is then in memory.",
    ),
    click.option(
        "--curve",
        type=click.IntRange(0, 64),
        metavar="N",
        default=6,
        show_default=True,
        help="Sizes at which the divergence is measured and noted in the file; the model is then in memory.",
    ),
)
@options.section(
    "Calibration",
    click.option(
        "--calib",
        default="default",
        metavar="FILE",
        show_default=True,
        help="Text to calibrate on: .txt or .jsonl.",
    ),
    click.option(
        "--calib-tokens",
        type=click.IntRange(64),
        default=32768,
        show_default=True,
        help="Tokens of that text to use.",
    ),
)
@options.section("Big jobs", options.work, options.shard, options.jobs)
@options.common
@dispatch.divided(
    dispatch.Division(("source", "calib"), ("curve",), library="bntools.tools.stack_compress.run", units=True)
)
def command(
    session: Session, source: str, output: str, force: bool, truncate: str | None, **given: Any,
) -> None:  # fmt: skip
    """Write a model as one file in order of importance: cut anywhere behind its base, it is a smaller model.

    INPUT is what bntools quantize takes; with --truncate, a stack.
    """
    from bntools.core.artifact.writer import Writer, is_directory
    from bntools.core.model import checkpoint
    from bntools.core.model.open import open_model

    if is_directory(output):
        raise usage(
            f"a stack is one file, and {output} is a directory", f"-o {output.rstrip('/')}.safetensors"
        )
    if truncate is not None:
        return _truncate(session, source, output, force, truncate)
    settings = _settings(session, given)
    _check(session, output, force)
    if source == EMBEDDED:
        terminal.note(session, "no model named: using the small embedded one (default:)")
    model = open_model(source)
    checkpoint.check(model)
    terminal.note_left_behind(session, model)
    session.apply()
    if session.dry_run:
        return _plan(session, model, settings)
    from bntools.tools.stack_compress import run

    with Writer(output, "stack-part" if given["shard"] else "stack", force=force) as out:
        report = run.compress(session, model, settings, given, out)
    terminal.manifest(out.manifest)
    if given["shard"]:
        return terminal.note(session, f"{report['tensors']} tensors of {report['of']}, part {given['shard']}")
    terminal.note(
        session,
        f"{report['tensors']} tensors, base of {report['base_bits_per_weight']:.2f} bits per linear weight, "
        f"{report['blocks']} blocks of {terminal.megabytes(report['block_bytes'])} over it",
    )
    return None


def _settings(session: Session, given: dict[str, Any]) -> Any:
    from bntools.tools.stack_compress import bitstack, build

    paper, embedding, sort = given["paper"], given["embedding"], given["sort"]
    if given["codec"] == "planes":
        named = [option for option in ("rank", "scaling", "paper") if given[option]]
        if named:
            raise usage(f"--{named[0]} is for --codec bitstack", "--codec bitstack")
        whole = not (given["shard"] or given["gather"])
        if given["compensate"] and not whole:
            raise usage("--compensate needs the whole model, not a part", "--no-compensate")
        compensate = whole and given["compensate"] is not False
        return build.Settings(
            given["base"], given["planes"], embedding is not False, compensate, sort, given["rescore"],
            session.seed,
        )  # fmt: skip
    if given["compensate"]:
        raise usage("--compensate is for --codec planes", "--no-compensate")
    rank = given["rank"] or (16 if paper else 4)
    scaling = given["scaling"] or ("official" if paper else "rms")
    return bitstack.Settings(
        rank, given["levels"], scaling, paper, bool(embedding), sort, given["rescore"], session.seed
    )


def _check(session: Session, output: str, force: bool) -> None:
    from bntools.core.artifact.writer import check_target

    if not session.dry_run:
        check_target(output, force)


def _sizes(shapes: list[Any], settings: Any) -> tuple[int, int]:
    """Bytes of the stacked weights, about: in the base, and in all."""
    if hasattr(settings, "rank"):
        level = sum(a * -(-b // 8) + 2 * min(settings.rank, a, b) * (a + b) for a, b in shapes)
        return level, level * settings.levels
    weights = sum(a * b for a, b in shapes)
    return int(settings.base * weights / 8), int((settings.base + settings.planes) * weights / 8)


def _plan(session: Session, model: Any, settings: Any) -> None:
    from bntools.tools.stack_compress.build import names_of

    names = names_of(model, settings)
    kept = sum(entry.nbytes for name, entry in model.entries.items() if name not in set(names))
    base, whole = _sizes([model.entries[name].shape for name in names], settings)
    report = {
        "kind": "plan",
        "tensors": len(names),
        "reads_bytes": model.store.nbytes(),
        "writes_bytes": whole + kept,
        "base_bytes": base + kept,
    }
    rows = [["tensors to stack", str(len(names))], ["reads", terminal.megabytes(report["reads_bytes"])],
            ["writes, about", terminal.megabytes(report["writes_bytes"])],
            ["the base of it, about", terminal.megabytes(report["base_bytes"])]]  # fmt: skip
    terminal.emit(session, report, lambda console: console.print(terminal.table(["plan", "value"], rows)))


def _truncate(session: Session, source: str, output: str, force: bool, size: str) -> None:
    from bntools.core.artifact.reader import Artifact
    from bntools.core.artifact.writer import Writer
    from bntools.core.model.open import open_input
    from bntools.core.system.sizes import parse_bytes
    from bntools.tools.stack_compress import run

    budget = parse_bytes(size, "--truncate")
    _check(session, output, force)
    opened = open_input(source, budget)
    assert isinstance(opened, Artifact)
    if session.dry_run:
        report = {"kind": "plan", "reads_bytes": opened.nbytes, "writes_bytes": opened.nbytes}
        rows = [["writes, at most", terminal.megabytes(opened.nbytes)]]
        return terminal.emit(
            session, report, lambda console: console.print(terminal.table(["plan", "value"], rows))
        )
    with Writer(output, "stack", force=force) as out:
        run.truncate(session, opened, out)
    return terminal.manifest(out.manifest)
