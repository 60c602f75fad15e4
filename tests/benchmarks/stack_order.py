"""Orders of a BitStack file's blocks side by side: what scoring costs, and divergence at even sizes.

usage: stack_order.py [MODEL_DIR] [--levels N] [--calib FILE] [--calib-tokens N] [--score-tokens N] [--text FILE]
                      [--tokens N] [--points N] [--sorts NAMES]

The blocks are the same in every order (`--codec bitstack`, ours); MODEL_DIR is the embedded model where it is left out.
`fisher` is charged the whole sweep over the calibration text that gathers its statistics, of which the decomposition
needs a part anyway; `perplexity` the passes over its own tokens, one a block, so it costs the more the more matrices
and levels a model has. Seconds are CPU time of the process, and per 1024 tokens of either text. The divergence is
measured on another text. At sizes where a level of every matrix ends, orders by level are all the same.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from bntools.core.calibration import text_windows
from bntools.core.shelf import Shelf
from bntools.core.source import open_model
from bntools.core.text import default_text, read_text
from bntools.core.tokens import open_tokenizer
from bntools.tools.stack_compress import bitstack, build, curve, order, scaling
from bntools.tools.stack_compress.network import Network, bytes_of

SORTS = ("layer", "output-error", "fisher", "perplexity")


@contextlib.contextmanager
def quiet(label: str, total: int) -> Iterator[Callable[[int], None]]:
    yield lambda count: None


def timed(work: Callable[[], object]) -> tuple[object, float]:
    began = time.process_time()
    return work(), time.process_time() - began


def text(model: object, given: argparse.Namespace) -> Tensor:
    """Windows [n, L] of the text to measure on."""
    tokenizer = open_tokenizer(model.files, model.config, model.label)
    ids = tokenizer.ids(read_text(given.text) if given.text else default_text("eval"))
    length = min(256, model.config["max_position_embeddings"])
    count = max(1, min(given.tokens, len(ids)) // length)
    return torch.tensor(ids[: count * length]).view(count, length)


def losses(
    network: Network, stacks: bitstack.Bitstacks, blocks: list[order.Block], points: int
) -> list[float]:
    """Divergence of the prefixes of an order at evenly spaced sizes between its base and its whole."""
    total, found, before = sum(block.nbytes for block in blocks), [], {}
    for at in range(points):
        there = bytes_of(blocks, stacks.specs, total * at // (points - 1))
        network.place({name: value for name, value in there.items() if before.get(name) != value})
        found.append(network.kl())
        before = there
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", default="default:")
    parser.add_argument("--levels", type=int, default=8)
    parser.add_argument("--calib", default="default")
    parser.add_argument("--calib-tokens", type=int, default=8192)
    parser.add_argument("--score-tokens", type=int, default=1024)
    parser.add_argument("--text", help="to measure on, where it is not the default one")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--points", type=int, default=12)
    parser.add_argument("--sorts", default=",".join(SORTS))
    given = parser.parse_args()
    model, shelf = open_model(given.model), Shelf(None)
    settings = bitstack.Settings(levels=given.levels)
    windows = text_windows(model, given.calib, given.calib_tokens)
    names, swept = timed(lambda: build.prepare(model, windows, settings, shelf, "cpu", quiet))
    sizes = scaling.measured(model, names, windows, settings.scaling, shelf, "cpu", quiet)
    scales = scaling.beside(model, sizes, True)
    stacks, spent = timed(lambda: bitstack.stacks(model, shelf, names, scales, {}, settings, quiet))
    few = curve.windows_for(windows, given.score_tokens)
    print(f"{len(names)} matrices, {len(stacks.blocks)} blocks; decomposed in {spent:.1f} s", flush=True)

    def scored() -> list[order.Block]:
        return order.by_score(stacks.blocks, curve.perplexity_scores(stacks, few, "cpu", quiet))

    orders = {
        "layer": lambda: order.by_layer(stacks.blocks),
        "output-error": lambda: order.greedy(stacks.blocks, lambda block: block.error),
        "fisher": lambda: order.greedy(stacks.blocks, lambda block: block.gain),
        "perplexity": scored,
    }
    network = Network(stacks, text(model, given), "cpu")
    cost, found = {}, {}
    print(f"{'order':14} {'scoring':>9}   KL, nats a token, at {given.points} even sizes", flush=True)
    for name in given.sorts.split(","):
        blocks, cost[name] = timed(orders[name])
        cost[name] += swept * (name == "fisher")
        found[name] = np.array(losses(network, stacks, blocks, given.points))
        network.place({name: {} for name in stacks.specs})
        row = " ".join(f"{value:8.4f}" for value in found[name])
        print(f"{name:14} {cost[name]:7.2f} s   {row}", flush=True)
    if {"fisher", "perplexity"} <= set(found):
        ratio = " ".join(f"{value:8.3f}" for value in found["fisher"] / found["perplexity"])
        print(f"{'fisher / perplexity':26}   {ratio}")
        each = {"fisher": cost["fisher"] / windows.numel(), "perplexity": cost["perplexity"] / few.numel()}
        print(
            f"scoring by perplexity costs {cost['perplexity'] / cost['fisher']:.1f} times as much as by fisher, "
            f"{each['perplexity'] / each['fisher']:.0f} times for as many tokens"
        )


if __name__ == "__main__":
    main()
