"""bntools ib-analyze: open the dump, measure, show, draw; or train."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bntools import dispatch, option_blocks, options, terminal
from bntools.core.errors import usage
from bntools.options import Session
from bntools.tools.ib_analyze.regression.options import Training, training

if TYPE_CHECKING:
    from bntools.core.information.epochs import Dump
    from bntools.tools.ib_analyze.settings import Planes

EPILOG = """\b
Examples:
  bntools ib-analyze dumps/ --plot plane.svg
  bntools ib-analyze dumps/ --paper szt2017 --units bits
  bntools ib-analyze dumps/ --gap --json | jq .gap.rank_correlation
  bntools ib-analyze --train cs-ib data.safetensors -o model.safetensors
"""


def _check_parts(given: dict[str, Any]) -> None:
    if given["training"].train is not None:
        raise usage("--train is not divided into parts", "drop --on")
    if given["source"] == "-":
        raise usage("a stream is read once, parts read the dump each", "name the folder or file of the dump")


@click.command("ib-analyze", short_help="Information planes, with what speaks against them.", epilog=EPILOG)
@options.input_argument(example="bntools ib-analyze dumps/")
@click.option(
    "--labels", metavar="FILE", help="Classes of the dump's rows, where it has none: .npy or FILE:NAME."
)
@click.option("--estimator", type=click.Choice(["compressed", "mixture", "binning"]), default="compressed",
    show_default=True,
    help="Neighbours of principal components, bounds of a Gaussian mixture, or bins.")  # fmt: skip
@click.option("--noise", type=click.Choice(["relative", "absolute"]), default="relative", show_default=True,
              help="Noise in units of each layer's root mean square, or as it is.")  # fmt: skip
@click.option("--sigma",
    metavar="S,S,S",
    help="Sizes of the noise; the middle one is shown.  [default: 0.03,0.1,0.3; mixture: 0.3,0.6,1]")  # fmt: skip
@click.option("--bins", type=click.IntRange(2), default=30, show_default=True, help="Bins a unit.")
@click.option("--range", "limits", default="auto", show_default=True, metavar="RANGE",
              help="Of the bins: auto, quantile or fixed:LOW,HIGH.")  # fmt: skip
@click.option("--compress", type=click.Choice(["pca", "random", "autoencoder"]), default="pca", show_default=True,
              help="Coordinates of --estimator compressed: principal or random axes, or a network's code.")  # fmt: skip
@click.option("--components", type=click.IntRange(1), default=4, show_default=True,
              help="Number of them.")  # fmt: skip
@click.option(
    "-k", "--neighbours", type=click.IntRange(1), default=3, show_default=True, help="Which neighbour."
)
@click.option("--queries", type=click.IntRange(50), default=1000, show_default=True,
              help="Rows measured against all rows.")  # fmt: skip
@click.option(
    "--paper", type=click.Choice(["szt2017", "saxe2018", "butakov2023"]), help="The way of a paper."
)
@click.option(
    "--gap", is_flag=True, help="sqrt((I(X;T|Y) + 1) / n) beside the gap between test and training loss."
)
@click.option(
    "--losses", metavar="FILE", help="JSON lines of epoch, train_loss, test_loss, n_train for --gap."
)
@click.option("--run", "others", multiple=True, metavar="DUMP",
              help="Another run's dump for --gap, compared at its last epoch; repeatable.")  # fmt: skip
@click.option("--units", type=click.Choice(["nats", "bits"]), default="nats", show_default=True, help="Unit.")
@training
@option_blocks.plot("the plane, or the regressions of --train")
@click.option("-o", "--output", default="-", metavar="PATH", show_default="standard output", is_eager=True,
              callback=options.not_empty, help="Where --shard writes its part, or --train its network.")  # fmt: skip
@option_blocks.replacing("output")
@options.work
@options.shard
@options.jobs
@options.common
@dispatch.divided(
    dispatch.Division(
        ("source", "labels"), ("losses", "others", "units"), "bntools.tools.ib_analyze.run", units=True,
        check=_check_parts,
    )
)  # fmt: skip
def command(
    session: Session,
    source: str,
    training: Training,
    output: str,
    force: bool,
    plot: str | None,
    **given: Any,
) -> None:
    """Information planes of the dump INPUT: a folder, a file, or - for a stream, as bntools-record(1) writes them.

    What each layer at each epoch tells of input and label, when it fits and by how much it compresses, and warnings.
    With --train, INPUT is a table, and a regression through a bottleneck is trained on it.
    """
    if plot is not None:
        from bntools.core.report import pictures

        pictures.check(plot)
    if training.train is not None:
        from bntools.tools.ib_analyze.regression.execute import check_apart, execute

        check_apart(given)
        return execute(session, source, training, place=(output, force), plot=plot)
    if output != "-" and not given["shard"]:
        raise usage("-o is for --shard and --train", "redirect the report: > FILE")
    return _planes(session, source, (output, force), plot, given)


def _planes(
    session: Session, source: str, place: tuple[str, bool], plot: str | None, given: dict[str, Any]
) -> None:
    from bntools.core.information.epochs import open_dump
    from bntools.tools.ib_analyze.read import read_labels, read_losses
    from bntools.tools.ib_analyze.run import analyze
    from bntools.tools.ib_analyze.table import draw

    session.apply()
    how = {name: given.pop(name) for name in ("work", "shard", "gather")}
    labels, losses, gap, others = (given.pop(name) for name in ("labels", "losses", "gap", "others"))
    if others and not gap:
        raise usage("--run compares runs by their gaps", "--gap --run OTHER/")
    settings = _settings(session, {**given, "conditional": gap})
    dump = open_dump(source)
    if session.dry_run:
        return _plan(session, dump)
    classes = None if labels is None else read_labels(labels)
    if how["shard"]:
        return _part(session, (dump, classes, settings), how, place)
    known = None if losses is None else read_losses(losses)
    with terminal.progress(session, "points", len(dump.places)) as advance:
        report = analyze(dump, classes, settings, gap=gap, losses=known, how=_how(session, how, advance))
    if others:
        _compare(report, source, others, settings)
    for sentence in report["warnings"]:
        terminal.note(session, sentence)
    if plot is not None:
        from bntools.tools.ib_analyze.plot import draw as draw_plane

        draw_plane({"": report}, plot)
    return terminal.emit(session, report, lambda console: draw(console, report))


def _part(session: Session, what: tuple[Any, ...], how: dict[str, Any], place: tuple[str, bool]) -> None:
    from bntools.tools.ib_analyze.run import write_part

    dump, classes, settings = what
    with terminal.progress(session, "points", len(dump.places)) as advance:
        done = write_part(dump, classes, settings, how["shard"], place=place, how=_how(session, how, advance))
    terminal.manifest(done)


def _how(session: Session, how: dict[str, Any], advance: Any) -> Any:
    import os

    from bntools.tools.ib_analyze.run import RunOptions

    threads = session.threads or len(os.sched_getaffinity(0))
    return RunOptions(how["work"], how["gather"], threads, advance)


def _compare(report: dict[str, Any], source: str, others: tuple[str, ...], settings: Planes) -> None:
    """Add the last epochs of all runs to the gap."""
    from bntools.core.information.epochs import open_dump
    from bntools.tools.ib_analyze.gap import over_runs
    from bntools.tools.ib_analyze.run import gap_of_run

    runs = [(source, report["gap"])] + [(name, gap_of_run(open_dump(name), settings)) for name in others]
    report["gap"].update(over_runs(runs))


def _plan(session: Session, dump: Dump) -> None:
    report = {"kind": "plan", "epochs": dump.epochs, "layers": dump.layers, "points": len(dump.places)}
    rows = [[key, str(value)] for key, value in report.items() if key != "kind"]
    terminal.emit(session, report, lambda console: console.print(terminal.table(["plan", "value"], rows)))


def _settings(session: Session, choices: dict[str, Any]) -> Planes:
    from bntools.tools.ib_analyze.settings import Planes, of_paper, parse_limits, parse_sigmas

    paper = choices.pop("paper")
    sigma, limits = choices.pop("sigma"), parse_limits(choices.pop("limits"))
    sigmas = () if sigma is None else parse_sigmas(sigma)
    settings = Planes(sigmas=sigmas, limits=limits, seed=session.seed, **choices)
    return settings if paper is None else of_paper(paper, settings)
