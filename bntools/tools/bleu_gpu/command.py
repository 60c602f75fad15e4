"""bntools bleu-gpu: read pairs of token ids line by line, score, write line by line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bntools import options, terminal
from bntools.core.errors import bad_input, usage
from bntools.options import Session

if TYPE_CHECKING:
    from collections.abc import Iterator

EPILOG = """\b
Examples:
  bntools bleu-gpu pairs.jsonl > scores.jsonl
  bntools bleu-gpu pairs.jsonl --mode sacrebleu --corpus
  cat part*.jsonl | bntools bleu-gpu --stats | bntools bleu-gpu --from-stats --corpus
"""


@click.command("bleu-gpu", short_help="BLEU of token ids, per sentence or corpus.", epilog=EPILOG)
@click.argument("source", metavar="[INPUT]", default="-")
@click.option(
    "--mode",
    type=click.Choice(["nltk", "sacrebleu"]),
    default="nltk",
    show_default=True,
    help="Whose definition to follow to the letter.",
)
@click.option(
    "--smoothing",
    metavar="NAME",
    help="nltk: 0 to 7 (default 0); sacrebleu: exp (default), floor, add-k or none.",
)
@click.option("--max-n", type=click.IntRange(1, 16), default=4, show_default=True, help="Longest n-gram.")
@click.option("--eos-id", type=int, help="A sentence ends before the first of these.")
@click.option("--pad-id", type=int, help="Strip these from the end of a sentence.")
@click.option("--corpus", is_flag=True, help="One score over all lines.")
@click.option("--stats", is_flag=True, help="Write the statistics of each line, not its score.")
@click.option("--from-stats", is_flag=True, help="Lines are statistics that --stats wrote.")
@click.option("--skip-bad", is_flag=True, help="Report a bad line and go on.")
@options.common
def command(session: Session, source: str, **given: Any) -> None:
    """Score lines {"hyp": [ids], "refs": [[ids], ...]} of INPUT: a line {"bleu": 0..1} for each.

    INPUT is a .jsonl file, or - for standard input, also when left out.
    """
    from pathlib import Path

    if given["stats"] and (given["from_stats"] or given["corpus"]):
        raise usage(
            "--stats excludes --from-stats and --corpus", "pipe it: --stats | ... --from-stats --corpus"
        )
    session.apply()
    smoothing = _smoothing(given["mode"], given["smoothing"])
    _validate(given["mode"], smoothing)
    if session.dry_run:
        return terminal.note(
            session, f"would score the lines of {'standard input' if source == '-' else source}"
        )
    if source == "-":
        if click.get_binary_stream("stdin").isatty():
            raise bad_input("standard input is a terminal", "bntools bleu-gpu pairs.jsonl")
        return _score(session, click.get_binary_stream("stdin"), smoothing, given)
    try:
        file = Path(source).open("rb")  # noqa: SIM115
    except OSError as error:
        raise bad_input(f"{source}: {error.strerror}", "a .jsonl file, or - for standard input") from None
    with file:
        return _score(session, file, smoothing, given)


def _smoothing(mode: str, name: str | None) -> str | None:
    """NLTK's methods by their number or name; sacrebleu's as they are."""
    return f"method{name}" if mode == "nltk" and name and name.isdigit() else name


def _validate(mode: str, smoothing: str | None) -> None:
    """Refuse what the method would refuse, before any input is read."""
    import torch

    from bntools.tools.bleu_gpu.scores import bleu_scores

    bleu_scores(torch.zeros(1, 2 + 2 * 6, dtype=torch.int32), mode, smoothing)


def _score(session: Session, lines: Any, smoothing: str | None, given: dict[str, Any]) -> None:
    import torch

    from bntools.tools.bleu_gpu.scores import BEYOND, bleu_scores, signature

    looks_beyond = smoothing in ("method5", "method7")
    orders = max(given["max_n"], BEYOND) if looks_beyond else given["max_n"]
    if looks_beyond and not (given["max_n"] == BEYOND - 1):
        raise usage(f"--smoothing {smoothing} is defined for --max-n {BEYOND - 1}", f"--max-n {BEYOND - 1}")
    keep, count, scored, total, skipped = [], 0, 0, 0.0, [0]
    out = click.get_text_stream("stdout")
    for stats in _tables(session, lines, orders, given, skipped):
        count += len(stats)
        if given["corpus"]:
            keep.append(stats)
        elif given["stats"]:
            out.write("".join(f'{{"stats": {row}}}\n' for row in stats.tolist()))
        else:
            found = bleu_scores(stats, given["mode"], smoothing).tolist()
            defined = [value for value in found if value == value]
            total, scored = total + sum(defined), scored + len(defined)
            out.write(
                "".join(
                    f'{{"bleu": {value!r}}}\n' if value == value else '{"bleu": null}\n' for value in found
                )
            )
    if not count:
        raise bad_input("no pairs to score", 'a line is {"hyp": [ids], "refs": [[ids], ...]}')
    named = signature(given["mode"], smoothing, given["max_n"], refs="var", corpus=given["corpus"])
    if given["corpus"]:
        value = float(bleu_scores(torch.cat(keep), given["mode"], smoothing, corpus=True))
        report = {
            "kind": "bleu-gpu",
            "bleu": value,
            "lines": count,
            "skipped": skipped[0],
            "signature": named,
        }
        return terminal.emit(session, report, lambda console: _draw(console, report))
    mean = "" if given["stats"] else f", mean BLEU {total / max(scored, 1):.4f}"
    left_out = f", {skipped[0]} bad lines skipped" if skipped[0] else ""
    return terminal.note(session, f"{count} lines{left_out}{mean} ({named})")


def _tables(
    session: Session, lines: Any, orders: int, given: dict[str, Any], skipped: list[int]
) -> Iterator[Any]:
    """Statistics of one batch of lines after the other."""
    from bntools.tools.bleu_gpu import stream

    def skip(number: int, reason: str) -> None:
        skipped[0] += 1
        terminal.note(session, f"line {number} skipped: {reason}")

    on_bad = skip if given["skip_bad"] else stream.refuse
    if given["from_stats"]:
        for batch in stream.batches(lines, stream.stored(orders), on_bad):
            yield stream.table(batch)
        return
    for batch in stream.batches(lines, stream.pair, on_bad):
        yield stream.stats_of(batch, given["pad_id"], given["eos_id"], orders)


def _draw(console: Any, report: dict[str, Any]) -> None:
    rows = [[key, str(report[key])] for key in ("lines", "skipped", "signature")]
    console.print(terminal.facts(f"BLEU {report['bleu']:.4f}", rows))
