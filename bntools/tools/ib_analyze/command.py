"""bntools ib-analyze: open the dump, measure, show, draw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bntools import option_blocks, options, terminal
from bntools.options import Session

if TYPE_CHECKING:
    from bntools.tools.ib_analyze.settings import Planes

EPILOG = """\b
Examples:
  bntools ib-analyze dumps/ --plot plane.svg
  bntools ib-analyze dumps/ --paper szt2017 --units bits
  bntools ib-analyze dumps/ --gap --json | jq .gap.rank_correlation
"""


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
@click.option("--components", type=click.IntRange(1), default=4, show_default=True,
              help="Principal components of --estimator compressed.")  # fmt: skip
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
@click.option("--units", type=click.Choice(["nats", "bits"]), default="nats", show_default=True, help="Unit.")
@option_blocks.plot("the plane")
@options.common
def command(
    session: Session,
    source: str,
    labels: str | None,
    losses: str | None,
    plot: str | None,
    gap: bool,
    **choices: Any,
) -> None:
    """Information planes of the dump INPUT: a folder, a file, or - for a stream, as bntools-record(1) writes them.

    What each layer at each epoch tells of input and label, when it fits and by how much it compresses, and warnings.
    """
    if plot is not None:
        from bntools.core.report import pictures

        pictures.check(plot)
    from bntools.core.information.epochs import open_dump
    from bntools.tools.ib_analyze.read import read_labels, read_losses
    from bntools.tools.ib_analyze.run import analyze
    from bntools.tools.ib_analyze.table import draw

    session.apply()
    settings = _settings(session, choices)
    dump = open_dump(source)
    if session.dry_run:
        report = {"kind": "plan", "epochs": dump.epochs, "layers": dump.layers, "points": len(dump.places)}
        rows = [[key, str(value)] for key, value in report.items() if key != "kind"]
        return terminal.emit(
            session, report, lambda console: console.print(terminal.table(["plan", "value"], rows))
        )
    classes = None if labels is None else read_labels(labels)
    known = None if losses is None else read_losses(losses)
    with terminal.progress(session, "points", len(dump.places)) as advance:
        report = analyze(dump, classes, settings, gap=gap, losses=known, advance=advance)
    for sentence in report["warnings"]:
        terminal.note(session, sentence)
    if plot is not None:
        from bntools.tools.ib_analyze.plot import draw as draw_plane

        draw_plane(report, plot)
    return terminal.emit(session, report, lambda console: draw(console, report))


def _settings(session: Session, choices: dict[str, Any]) -> Planes:
    from bntools.tools.ib_analyze.settings import Planes, of_paper, parse_limits, parse_sigmas

    paper = choices.pop("paper")
    sigma, limits = choices.pop("sigma"), parse_limits(choices.pop("limits"))
    sigmas = () if sigma is None else parse_sigmas(sigma)
    settings = Planes(sigmas=sigmas, limits=limits, seed=session.seed, **choices)
    return settings if paper is None else of_paper(paper, settings)
