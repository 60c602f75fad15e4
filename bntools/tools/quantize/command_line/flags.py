"""The options of quantize, in the groups that --help shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from bntools import options

MADE_TOKENS = 8192  # of --calib none
PRESETS = ("fast", "good", "best", "paper")

_SIZE = (
    click.option("--bits", type=click.IntRange(2, 8), default=None, show_default="4", help="Bits a code."),
    click.option(
        "--budget",
        metavar="BITS|SIZE",
        help="Size not to exceed: bits per linear weight (3.25), or of the whole file (90MB, 57MiB). Fixed codes "
        "then choose bits and group size for each weight.",
    ),
    click.option(
        "--code",
        type=click.Choice(["fixed", "entropy"]),
        default="fixed",
        show_default=True,
        help="Codes of --bits each, or levels of any size behind an entropy coder, the fewest bytes for a model.",
    ),
    click.option(
        "--group-size",
        type=int,
        default=None,
        show_default="128",
        help="Weights that share a scale; -1: a whole row.",
    ),
    click.option(
        "--embedding/--no-embedding",
        default=None,
        show_default="with a SIZE",
        help="--code entropy also codes the embedding and the output head.",
    ),
    click.option(
        "--include", multiple=True, metavar="REGEX", help="Quantize only weights whose name matches."
    ),
    click.option("--exclude", multiple=True, metavar="REGEX", help="Keep weights whose name matches."),
    click.option(
        "--override",
        multiple=True,
        metavar="REGEX=KEY:VALUE,...",
        help="Other bits, group, dim, symmetric or skip for some weights.",
    ),
)
_METHOD = (
    click.option(
        "--preset",
        type=click.Choice(PRESETS),
        default=None,
        show_default="best with --budget alone",
        help="Several of the options below at once: rounding by the weights alone (fast), rounding with bits by a "
        "text (good), GPTQ on trellises (best), AdaDim as published (paper). Options that are named win.",
    ),
    click.option(
        "--method",
        type=click.Choice(["rtn", "gptq"]),
        default="rtn",
        show_default=True,
        help="Round to nearest, or compensate each column's error in the columns still to come (GPTQ).",
    ),
    click.option(
        "--grid",
        "search",
        type=click.Choice(["minmax", "weighted"]),
        default="minmax",
        show_default=True,
        help="Scales and zeros from the range of a group, or searched for the smallest error weighted by the inputs.",
    ),
    click.option(
        "--dim",
        type=click.Choice(["oc", "ic", "ada"]),
        default="oc",
        show_default=True,
        help="Groups along the inputs (oc), along the outputs (ic), or the better of both for each module (ada).",
    ),
    click.option("--per-ic", is_flag=True, help="The same as --dim ic."),
    click.option(
        "--criterion",
        type=click.Choice(["module", "output", "diag", "weight"]),
        default="module",
        show_default=True,
        help="Error that --dim ada compares: of the attention or MLP output, of the linear's output (with --method "
        "gptq), of that taking inputs as uncorrelated, of the weight.",
    ),
    click.option(
        "--choose",
        type=click.Choice(["rtn", "final"]),
        default="rtn",
        show_default=True,
        help="--dim ada compares the dimensions rounded to nearest (as AdaDim does), or as GPTQ finally codes them.",
    ),
    click.option(
        "--symmetric/--asymmetric",
        default=False,
        show_default=True,
        help="Grid without or with a zero point.",
    ),
    click.option(
        "--scales",
        "meta",
        type=click.Choice(["fp16", "2", "3", "4"]),
        default="fp16",
        show_default=True,
        help="Scales as numbers, or scales and zeros as codes of so many bits, searched for the least error.",
    ),
    click.option(
        "--trellis",
        type=click.Choice(["0", "2", "3", "4", "5", "6", "7", "8"]),
        default="0",
        show_default=True,
        help="Codes on a trellis of 2^N states: half a step finer at the same number of bits; needs --scales 2, 3 "
        "or 4.",
    ),
    click.option(
        "--refit",
        "rounds",
        type=click.IntRange(0, 16),
        default=0,
        show_default=True,
        help="Rounds of refitting scales and codes to each other after GPTQ; needs --scales 2, 3 or 4.",
    ),
    click.option(
        "--balance/--no-balance",
        default=False,
        show_default=True,
        help="Factors on the inputs, a byte each, even out the columns before groups get their scales; with --method "
        "rtn.",
    ),
    click.option(
        "--fisher/--plain",
        default=None,
        show_default="with --budget",
        help="GPTQ weighs what a linear is fed by the gradients at its outputs, or all of it alike.",
    ),
    click.option(
        "--sequential/--parallel",
        default=False,
        show_default=True,
        help="Calibrate each linear on what the already quantized layers before it give, or on the original's.",
    ),
    click.option(
        "--compensate/--no-compensate",
        default=None,
        show_default="with --code entropy",
        help="Aim each linear at the original's outputs for what the coded layers before it give.",
    ),
    click.option(
        "--states",
        type=click.Choice(["1", "8"]),
        default="8",
        show_default=True,
        help="--code entropy: 8 states of a trellis, or 1, plain rounding to multiples of the step.",
    ),
    click.option(
        "--two-sided/--one-sided",
        default=True,
        show_default=True,
        help="--code entropy: errors are fed back over the outputs of a matrix as well as over its inputs.",
    ),
    click.option(
        "--distill",
        type=click.IntRange(0),
        metavar="STEPS",
        default=0,
        show_default=True,
        help="Train factors of rows and columns and norm gains on the calibration text against the original's logits.",
    ),
)
_CALIBRATION = (
    click.option(
        "--calib",
        default="default",
        metavar="FILE|none",
        show_default=True,
        help="Text to calibrate on: .txt or .jsonl; none: tokens that the model makes, and --method gptq --grid "
        "weighted unless others are named.",
    ),
    click.option(
        "--calib-tokens",
        type=click.IntRange(0),
        default=None,
        show_default="32768 for gptq and entropy, else 4096; 8192 without a text",
        help="Tokens of that text to use, or to make; 0 with --calib none: the weights alone decide.",
    ),
)


def quantize_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that decide the result, under Size, Method and Calibration."""
    for title, group in (("Calibration", _CALIBRATION), ("Method", _METHOD), ("Size", _SIZE)):
        function = options.section(title, *group)(function)
    return function
