"""bntools bleu-gpu: read sentences of token ids, score, write line by line."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from bntools import dispatch, options, terminal
from bntools.core.errors import bad_input, usage
from bntools.options import Session

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bntools.tools.bleu_gpu.settings import Settings
    from bntools.tools.bleu_gpu.sources import Batch, Reading

ALSO = ["gleu", "chrf", "rouge-1", "rouge-2", "rouge-l"]
EPILOG = """\b
Examples:
  bntools bleu-gpu pairs.jsonl > scores.jsonl
  bntools bleu-gpu pairs.jsonl --mode sacrebleu --corpus --bootstrap 1000
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
@click.option("--value", type=float, help="Epsilon of NLTK's method 1, value of floor or add-k.")
@click.option("--max-n", type=click.IntRange(1, 16), default=4, show_default=True, help="Longest n-gram.")
@click.option("--weights", metavar="W,W,...", help="Weight of each order, for nltk; default: all equal.")
@click.option("--auto-reweigh", is_flag=True, help="NLTK's auto_reweigh: fewer orders below 4 tokens.")
@click.option(
    "--effective-order/--no-effective-order", default=None,
    help="For sacrebleu; default: for sentences, not for a corpus.",
)  # fmt: skip
@click.option("--eos-id", type=int, help="A sentence ends before the first of these.")
@click.option("--pad-id", type=int, help="Strip these from the end of a sentence.")
@click.option("--refs", metavar="FILE", help="INPUT and FILE are safetensors with ids.")
@click.option("--tokenizer", metavar="MODEL", help="Lines hold texts; MODEL's tokenizer makes ids of them.")
@click.option("--corpus", is_flag=True, help="One score over all lines.")
@click.option("--stats", is_flag=True, help="Write the statistics of each line, not its score.")
@click.option("--from-stats", is_flag=True, help="Lines are statistics that --stats wrote.")
@click.option("--bootstrap", type=click.IntRange(10), metavar="N", help="95 % interval from N resamples.")
@click.option("--baseline", metavar="FILE", help="Compare with another system's --stats of the same lines.")
@click.option("--self-bleu", is_flag=True, help="Score each sample against the others of its group.")
@click.option("--group", type=click.IntRange(2), metavar="G", help="Lines to a group, for --self-bleu.")
@click.option(
    "--also", type=click.Choice(ALSO), multiple=True, help="Another metric of each line; repeatable."
)
@click.option("--skip-bad", is_flag=True, help="Report a bad line and go on.")
@options.part_output
@options.part_force
@options.run_folder
@options.shard
@options.jobs
@options.common
@dispatch.divided(
    dispatch.Division(
        ("source", "tokenizer"), ("corpus", "bootstrap", "baseline"), "bntools.tools.bleu_gpu.sources",
        check=lambda given: _undivided(given),
    )
)  # fmt: skip
def command(session: Session, source: str, **given: Any) -> None:
    """Score lines {"hyp": [ids], "refs": [[ids], ...]} of INPUT: a line {"bleu": 0..1} for each.

    INPUT is a .jsonl file, or - for standard input, also when left out; with --refs a .safetensors file.
    """
    _fits(given)
    settings = _settings(given)
    if given["bootstrap"] or given["baseline"]:
        settings.refuse_resampling()
    device = _device(session, given)
    if session.dry_run:
        what = "standard input" if source == "-" else source
        beside = f" against {given['refs']}" if given["refs"] else ""
        signature = settings.signature(given["corpus"])
        return terminal.note(session, f"would score {what}{beside}, a block at a time ({signature})")
    from bntools.tools.bleu_gpu.sources import Reading, encoder

    skipped = [0]
    reading = Reading(
        settings.orders, given["eos_id"], given["pad_id"], given["also"], device,
        _skip(session, skipped, given["skip_bad"]), encoder(given["tokenizer"]) if given["tokenizer"] else None,
        session.threads or len(os.sched_getaffinity(0)),
    )  # fmt: skip
    if given["shard"] or given["gather"]:
        from bntools.tools.bleu_gpu import parts

        _undivided({**given, "source": source})
        told = parts.told_identity(source, settings.orders, given)
        if given["gather"]:
            return _scored(session, parts.read(given["gather"], told, skipped), settings, given, skipped)
        with _batches(source, given, reading) as batches:
            return terminal.manifest(parts.write(batches, told, given, skipped))
    with _batches(source, given, reading) as batches:
        return _scored(session, batches, settings, given, skipped)


def _scored(
    session: Session, batches: Iterable[Batch], settings: Settings, given: dict[str, Any], skipped: list[int]
) -> None:
    """One report, or a line for each."""
    if given["corpus"]:
        return _corpus(session, batches, settings, given, skipped)
    return _lines(session, batches, settings, given["stats"], skipped)


def _undivided(given: dict[str, Any]) -> None:
    """Refuse what is not divided by lines (exit 2)."""
    for name in ("refs", "self_bleu", "stats"):
        if given[name]:
            raise usage(
                f"--{name.replace('_', '-')} is not divided into parts", "drop --shard, --gather or --on"
            )
    if given["source"] == "-":
        raise usage("parts are of a file, not of standard input", "name a .jsonl file")


def _fits(given: dict[str, Any]) -> None:
    """Refuse options that contradict each other, before any input is read."""
    excluded = [
        ("stats", ("from_stats", "corpus"), "pipe it: --stats | ... --from-stats --corpus"),
        ("refs", ("tokenizer", "from_stats", "self_bleu"), "--refs is for safetensors of ids"),
        ("from_stats", ("tokenizer", "self_bleu", "also"), "statistics hold no sentences"),
        ("also", ("stats", "corpus", "self_bleu"), "other metrics go with scores of lines"),
        ("corpus", ("self_bleu",), "the mean of the lines is on standard error"),
    ]
    for one, others, hint in excluded:
        for other in others:
            if given[one] and given[other]:
                raise usage(f"--{one} excludes --{other}".replace("_", "-"), hint)
    needs = [("bootstrap", "corpus"), ("baseline", "corpus"), ("group", "self_bleu"), ("self_bleu", "group")]
    for one, other in needs:
        if given[one] and not given[other]:
            raise usage(f"--{one} needs --{other}".replace("_", "-"), f"add --{other}".replace("_", "-"))


def _settings(given: dict[str, Any]) -> Settings:
    from bntools.tools.bleu_gpu.settings import Settings

    names = ("mode", "smoothing", "max_n", "effective_order", "auto_reweigh", "value")
    weights = None
    if given["weights"] is not None:
        try:
            weights = tuple(float(part) for part in given["weights"].split(","))
        except ValueError:
            raise usage(f"--weights {given['weights']}", "numbers with commas: 0.5,0.5") from None
    return Settings(weights=weights, **{name: given[name] for name in names})


def _device(session: Session, given: dict[str, Any]) -> str:
    """Lines are read faster than torch is imported and copied to a GPU: unless it is asked for, not done."""
    if session.device in ("auto", "cpu") and not given["refs"] and not given["also"]:
        return "cpu"
    session.apply()
    return session.torch_device() if given["refs"] or session.device != "auto" else "cpu"


def _skip(session: Session, skipped: list[int], wanted: bool) -> Any:
    from bntools.tools.bleu_gpu import stream

    def skip(number: int, reason: str) -> None:
        skipped[0] += 1
        terminal.note(session, f"line {number} skipped: {reason}")

    return skip if wanted else stream.refuse


@contextlib.contextmanager
def _batches(source: str, given: dict[str, Any], reading: Reading) -> Iterator[Iterable[Batch]]:
    """Batches of statistics from where the options say."""
    from bntools.tools.bleu_gpu import parts, sources

    if given["refs"]:
        yield sources.from_tensors("/dev/stdin" if source == "-" else source, given["refs"], reading)
        return
    with _opened(source) as file:
        if given["shard"]:
            file, reading = parts.mine(file, given["shard"], reading)
        if given["from_stats"]:
            yield sources.from_stats(file, reading)
        elif given["self_bleu"]:
            yield sources.from_samples(file, given["group"], reading)
        else:
            yield sources.from_pairs(file, reading)


@contextlib.contextmanager
def _opened(source: str) -> Iterator[Any]:
    if source == "-":
        stdin = sys.stdin.buffer
        if stdin.isatty():
            raise usage("no INPUT, and standard input is a terminal", "bntools bleu-gpu pairs.jsonl")
        yield stdin
        return
    try:
        file = open(source, "rb")  # noqa: SIM115
    except OSError as error:
        raise usage(
            f"cannot open {source}: {error.strerror}", "a .jsonl file, or - for standard input"
        ) from None
    with file:
        yield file


def _none() -> Exception:
    return bad_input("no pairs to score", 'a line is {"hyp": [ids], "refs": [[ids], ...]}')


def _lines(
    session: Session, batches: Iterable[Batch], settings: Settings, raw: bool, skipped: list[int]
) -> None:
    """A line out for each in; their means on standard error."""
    out = sys.stdout
    count, sums, defined = 0, dict[str, float](), dict[str, int]()
    for stats, also in batches:
        count += len(stats)
        if raw:
            out.write("".join(f'{{"stats": {row}}}\n' for row in stats.tolist()))
        else:
            columns = {"bleu": settings.scores(stats), **also}
            for name, values in columns.items():
                known = values[values == values]
                sums[name] = sums.get(name, 0.0) + float(known.sum())
                defined[name] = defined.get(name, 0) + len(known)
            out.write(_written({name: values.tolist() for name, values in columns.items()}))
        out.flush()  # a program that writes pairs into the pipe may wait for their scores
    if not count:
        raise _none()
    means = "".join(
        f", mean {name} {total / defined[name]:.4f}" if defined[name] else f", {name} nowhere defined"
        for name, total in sums.items()
    )
    left_out = f", {skipped[0]} bad lines skipped" if skipped[0] else ""
    terminal.note(session, f"{count} lines{left_out}{means} ({settings.signature(False)})")


def _written(columns: dict[str, list[float]]) -> str:
    """JSON lines; what is not defined is null."""
    form = "{{" + ", ".join(f'"{name}": {{}}' for name in columns) + "}}\n"
    texts = ([repr(x) if x == x else "null" for x in values] for values in columns.values())
    return "".join(map(form.format, *texts))


def _corpus(
    session: Session, batches: Iterable[Batch], settings: Settings, given: dict[str, Any], skipped: list[int]
) -> None:
    """One report over all lines."""
    from bntools.tools.bleu_gpu import resample, sources
    from bntools.tools.bleu_gpu.settings import Corpus, measured

    times = given["bootstrap"] or (1000 if given["baseline"] else 0)
    corpus = Corpus(settings.mode, keep=bool(times))
    for stats, _ in batches:
        corpus.add(stats)
    if not corpus.count:
        raise _none()
    report: dict[str, Any] = {"kind": "bleu-gpu"}
    report["bleu"] = float(settings.scores(corpus.stats(), corpus=True))
    if times:
        rows, score = settings.resampling(corpus.stats())
        report["bleu"] = measured(resample.interval(rows, score, times, session.seed))
        report["resamples"] = times
    if given["baseline"]:
        other = sources.stored_stats(given["baseline"], settings.orders)
        compared = resample.compare(rows, settings.resampling(other)[0], score, times, session.seed)
        report["baseline"] = float(settings.scores(other, corpus=True))
        report["difference"], report["p_value"] = measured(compared.difference), compared.p_value
    report |= {"lines": corpus.count, "skipped": skipped[0], "signature": settings.signature(True)}
    terminal.emit(session, report, lambda console: _draw(console, report))


def _draw(console: Any, report: dict[str, Any]) -> None:
    def shown(value: Any) -> str:
        return (
            f"{value['value']:.4f}  ({value['low']:.4f} to {value['high']:.4f})"
            if isinstance(value, dict)
            else (f"{value:.4f}" if isinstance(value, float) else str(value))
        )

    rows = [[key, shown(value)] for key, value in report.items() if key not in ("kind", "bleu")]
    console.print(terminal.facts(f"BLEU {shown(report['bleu'])}", rows))
