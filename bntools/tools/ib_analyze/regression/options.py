"""The options of --train, and what they become."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import click

from bntools.core.errors import usage


class Training(NamedTuple):
    """The options as given: train is the method, None where nothing is trained."""

    train: str | None
    target: str
    beta: str
    norm: str
    kernel_width: str
    code: int
    train_epochs: int


_OPTIONS = [
    click.option("--train", type=click.Choice(["cs-ib"]), help="Train a regression on the table INPUT instead."),
    click.option("--target", default="y", show_default=True, metavar="COLUMN", help="The outcome of --train."),
    click.option("--beta", default="0.001,0.01,0.1", show_default=True, metavar="B,B,B",
                 help="Weights of the compression; each is trained, and the best on validation rows written."),
    click.option("--norm", type=click.Choice(["paper", "repo"]), default="paper", show_default=True,
                 help="Denominator of the divergence: as published, or as the released code has it."),
    click.option("--kernel-width", default="1", show_default=True, metavar="W",
                 help="Of the kernels, in standard deviations; or median, for median distances."),
    click.option("--code", type=click.IntRange(1), default=8, show_default=True, help="Numbers in the bottleneck."),
    click.option("--train-epochs", type=click.IntRange(1), default=100, show_default=True, help="Epochs of --train."),
]  # fmt: skip


def training(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options; the callback gets them as one `training`. Those given without --train are refused (exit 2)."""

    @functools.wraps(function)
    def wrapped(*args: Any, **given: Any) -> Any:
        chosen = Training(**{name: given.pop(name) for name in Training._fields})
        source = click.get_current_context().get_parameter_source
        if chosen.train is None:
            for name in Training._fields:
                if source(name) == click.core.ParameterSource.COMMANDLINE:
                    raise usage(
                        f"--{name.replace('_', '-')} is for --train", "--train cs-ib, or leave it out"
                    )
        return function(*args, training=chosen, **given)

    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped
