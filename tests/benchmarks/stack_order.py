"""Orders of a BitStack file's blocks side by side: what scoring costs, and divergence at even sizes.

usage: stack_order.py [MODEL_DIR] [--work DIR] [--threads N] [--levels N] [--calib FILE] [--calib-tokens N]
                      [--rescore-tokens N] [--score-tokens N] [--score-window N] [--text FILE] [--tokens N]
                      [--points N] [--sorts NAMES]

The blocks are the same in every order (`--codec bitstack`, ours); MODEL_DIR is the embedded model where it is left out.
NAMES, by commas, all by default but measured:

    layer         level by level, as the checkpoint has the matrices
    output-error  by what a block takes off the error of its matrix' output, a byte
    fisher        by the predicted decrease of the loss, a byte
    rescored      the same, scored anew by the gradient at a few sizes: what the command does by default
    same          the same on as many tokens as perplexity
    perplexity    the paper's: level by level, sorted by the perplexity with each block alone added
    measured      by what perplexity found a block to gain, a byte: its scores, but the rule of fisher

Each is charged the CPU seconds of this process: `fisher` its sort, `rescored` its network and gradients, `perplexity`
its network and a pass a block. In `all`, the first three are charged as well the sweep over the calibration text and
the losses of the levels, which are predicted by its moments; the last column says how many times as much perplexity
costs. For less than the command's tokens of a pass, a few passes over as many tell what it would cost there.

The divergence is measured on another text; the error of a difference is over the same windows of it. At sizes where
a level of every matrix ends, orders by level are all the same. With --work everything that is done is kept there, a
level of scores at a time, and an interrupted run goes on from it.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor

from bntools.core.blockwise.windows import text_windows
from bntools.core.model.identity import source_identity
from bntools.core.model.model import Model
from bntools.core.model.open import open_model
from bntools.core.system.threads import single_threaded
from bntools.core.text.documents import default_text, read_text
from bntools.core.text.tokens import open_tokenizer
from bntools.core.training import distill
from bntools.core.work.array_store import Shelf
from bntools.core.work.folder import Work, digest_of, digest_of_json, identity
from bntools.tools.stack_compress import bitstack, build, curve, order, rescore, scaling
from bntools.tools.stack_compress.network import Network, bytes_of
from bntools.tools.stack_compress.order import Block

SORTS = ("layer", "output-error", "fisher", "rescored", "same", "perplexity")
SWEPT = ("output-error", "fisher", "rescored", "same")  # by moments
RESCORE_TOKENS, SCORE_TOKENS = 2048, 1024  # of the command
FEW, MANY = 2, 8  # passes that are timed
NOISE = 2  # standard errors

There = Mapping[str, Mapping[tuple[int, int], int]]
Floats = NDArray[np.float64]
Done = TypeVar("Done")


@contextlib.contextmanager
def show(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Lines on standard error, one in ten seconds."""
    began, done, told = time.monotonic(), 0, time.monotonic()

    def step(count: int) -> None:
        nonlocal done, told
        done += count
        now = time.monotonic()
        if now - told > 10 or (done >= total and now - began > 10):
            told, left = now, (now - began) * (total - done) / done
            print(
                f"{label}: {done}/{total}, {now - began:.0f} s, {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    yield step


@contextlib.contextmanager
def quiet(label: str, total: int) -> Iterator[Callable[[int], None]]:
    yield lambda count: None


def timed(work: Callable[[], Done]) -> tuple[Done, float]:
    began = time.process_time()
    return work(), time.process_time() - began


def once(shelf: Shelf, unit: str, work: Callable[[], Floats | list[float]]) -> tuple[Floats, float]:
    """What work gave and its CPU seconds, of an earlier run where that is on the shelf."""
    if not shelf.has(unit):
        found, spent = timed(work)
        shelf.put(unit, [np.asarray(found, np.float64), np.array([spent])])
    values, seconds = shelf.get(unit)
    return values.astype(np.float64), float(seconds[0])


class Measured(Network):
    """The network on a text: divergence of each window, of any prefix."""

    def __init__(self, stacks: bitstack.Bitstacks, windows: Tensor) -> None:
        super().__init__(stacks, windows, "cpu")
        self._now: There = {}

    def each(self, there: There) -> Floats:
        """Nats a token, [n] by window."""
        self.place({name: value for name, value in there.items() if self._now.get(name) != value})
        self._now = there

        @torch.no_grad()
        def work(at: int) -> float:
            hidden = distill.final_states(self._built, self._windows[at])
            return distill.divergence(hidden, self._known[at], self._ours, self._teacher, gradient=False)[0]

        with single_threaded() as (pool, _):
            return np.array(list(pool.map(work, self._wanted))) / self._windows.shape[1]


class Orders:
    """Every order of the blocks, and what scoring for it cost."""

    def __init__(
        self, stacks: bitstack.Bitstacks, shelf: Shelf, settings: bitstack.Settings, some: Tensor, few: Tensor
    ) -> None:
        """some, few: windows for the gradient and for the perplexity."""
        self._stacks, self._shelf, self._settings, self._some, self._few = stacks, shelf, settings, some, few
        self._seconds: dict[int, float] = {}
        self._scorer: Callable[[int, list[Block]], list[float]] | None = None

    def of(self, name: str) -> tuple[list[Block], float]:
        blocks = self._stacks.blocks
        if name == "layer":
            return timed(lambda: order.by_layer(blocks))
        if name == "output-error":
            return timed(lambda: order.greedy(blocks, lambda block: block.error))
        if name == "fisher":
            return timed(lambda: order.greedy(blocks, lambda block: block.gain))
        if name in ("rescored", "same"):
            windows = self._some if name == "rescored" else self._few
            unit = f"rescored {self._settings.rescore} {digest_of(windows)}"
            found, spent = once(self._shelf, unit, lambda: self._rescored(windows))
            return [blocks[int(at)] for at in found], spent
        if name == "perplexity":
            found, spent = timed(lambda: order.by_score(blocks, self._score))
            return found, sum(self._seconds.values())
        if name == "measured":
            gains = self.gains()
            return order.greedy(blocks, lambda block: gains[block]), sum(self._seconds.values())
        raise SystemExit(f"no order {name!r}")

    def _rescored(self, windows: Tensor) -> list[float]:
        place = {block: at for at, block in enumerate(self._stacks.blocks)}
        found = rescore.rescored(self._stacks, windows, self._settings.rescore, "cpu", show)
        return [place[block] for block in found]

    def _score(self, plane: int, level: list[Block]) -> list[float]:
        def work() -> list[float]:
            self._scorer = self._scorer or curve.perplexity_scores(self._stacks, self._few, "cpu", show)
            return self._scorer(plane, level)

        found, self._seconds[plane] = once(self._shelf, f"scores {digest_of(self._few)} {plane}", work)
        return found.tolist()

    def gains(self) -> dict[Block, float]:
        """Decrease of the loss by each block alone, on all levels below."""
        levels: dict[int, list[Block]] = {}
        for block in order.by_layer(self._stacks.blocks):
            levels.setdefault(block.plane, []).append(block)
        before, _ = once(self._shelf, f"losses {digest_of(self._few)}", lambda: self._losses(sorted(levels)))
        found = {}
        for start, (plane, level) in zip(before, sorted(levels.items()), strict=True):
            scores = self._score(plane, level)
            found |= {block: start - float(np.log(score)) for block, score in zip(level, scores, strict=True)}
        return found

    def _losses(self, planes: list[int]) -> list[float]:
        """Before each level."""
        network, found = Network(self._stacks, self._few, "cpu"), []
        for plane in planes:
            there: dict[str, dict[tuple[int, int], int]] = {name: {} for name in self._stacks.specs}
            for block in self._stacks.blocks:
                if block.plane < plane:
                    there[block.name][block.plane, block.band] = block.nbytes
            network.place(there)
            found.append(network.loss())
        return found


def a_pass(stacks: bitstack.Bitstacks, windows: Tensor) -> float:
    """CPU seconds to score one block more by its perplexity on these windows."""
    planes = sorted({block.plane for block in stacks.blocks})
    plane = planes[len(planes) // 2]
    level = [block for block in stacks.blocks if block.plane == plane][:MANY]
    level = (level * MANY)[:MANY]
    score = curve.perplexity_scores(stacks, windows, "cpu", quiet)
    score(plane, level[:FEW])
    less, more = (timed(lambda count=count: score(plane, level[:count]))[1] for count in (FEW, MANY))
    return (more - less) / (MANY - FEW)


def losses_seconds(model: Model, shelf: Shelf, stacks: bitstack.Bitstacks) -> float:
    """CPU seconds of the predicted losses of all levels, as `bitstack.encode` takes them: one a matrix is timed."""
    total = 0.0
    for name, spec in stacks.specs.items():
        w, moments = build.weight(model, name), build.moments_of(shelf, name)
        total += (
            spec.levels * timed(lambda w=w, h=moments.inputs: (w @ h).mul_(w).sum(1, dtype=torch.float64))[1]
        )
    return total


def text(model: Model, given: argparse.Namespace) -> Tensor:
    """Windows [n, L] of the text to measure on."""
    tokenizer = open_tokenizer(model.files, model.config, model.label)
    ids = tokenizer.ids(read_text(given.text) if given.text else default_text("eval"))
    length = min(256, model.config["max_position_embeddings"])
    count = max(1, min(given.tokens, len(ids)) // length)
    return torch.tensor(ids[: count * length]).view(count, length)


def short(windows: Tensor, tokens: int, length: int) -> Tensor:
    """Beginnings of evenly spaced windows, about so many tokens."""
    length = min(length, windows.shape[1], tokens)
    return curve.windows_for(windows[:, :length], tokens).contiguous()


def prefix(stacks: bitstack.Bitstacks, blocks: list[Block], part: float) -> There:
    return bytes_of(blocks, stacks.specs, round(part * sum(block.nbytes for block in blocks)))


def compare(name: str, ours: Floats, theirs: Floats, parts: Floats) -> None:
    """Print where two curves [points, windows] differ by more than noise."""
    off = ours - theirs
    mean, error = off.mean(1), off.std(1, ddof=1) / np.sqrt(off.shape[1])
    print(f"\n{name} against perplexity: KL, and difference ± standard error over {off.shape[1]} windows")
    verdicts = []
    for at, part in enumerate(parts):
        sure = abs(mean[at]) > NOISE * error[at]
        verdicts.append(("worse" if mean[at] > 0 else "better") if sure else "same")
        print(
            f"  {100 * part:5.1f} % {ours[at].mean():9.5f} {theirs[at].mean():9.5f} "
            f"{mean[at]:+9.5f} ± {error[at]:.5f}  {verdicts[-1]}"
        )
    counts = ", ".join(f"{verdicts.count(kind)} {kind}" for kind in ("better", "same", "worse"))
    print(f"  beyond {NOISE} standard errors: {counts}; worse in the mean at {(mean > 0).sum()}", flush=True)


def explain(orders: Orders) -> None:
    """Print by level how predicted gains go with those measured by perplexity."""
    gains = orders.gains()
    print(
        "\nlevel   measured and predicted gains of single blocks, summed; rank correlation: of gains, a byte"
    )
    for plane in sorted({block.plane for block in gains}):
        level = [block for block in gains if block.plane == plane]
        found, thought = (np.array(v) for v in ([gains[b] for b in level], [b.gain for b in level]))
        size = np.array([block.nbytes for block in level])
        ranks = [
            float(spearmanr(*pair).statistic) for pair in ((found, thought), (found / size, thought / size))
        ]
        print(f"{plane:5} {found.sum():10.5f} {thought.sum():10.5f} {ranks[0]:8.3f} {ranks[1]:8.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", default="default:")
    parser.add_argument("--work", metavar="DIR")
    parser.add_argument("--threads", type=int, default=0, help="of torch; those of BLAS by OMP_NUM_THREADS")
    parser.add_argument("--levels", type=int, default=8)
    parser.add_argument("--calib", default="default")
    parser.add_argument("--calib-tokens", type=int, default=8192)
    parser.add_argument("--rescore-tokens", type=int, default=RESCORE_TOKENS)
    parser.add_argument("--score-tokens", type=int, default=SCORE_TOKENS)
    parser.add_argument("--score-window", type=int, default=512, help="tokens of each, at most")
    parser.add_argument("--text", help="to measure on, where it is not the default one")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--points", type=int, default=12)
    parser.add_argument("--sorts", default=",".join(SORTS))
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    model, settings = open_model(given.model), bitstack.Settings(levels=given.levels)
    windows = text_windows(model, given.calib, given.calib_tokens)
    decides = identity(
        "stack-order", source_identity(model), levels=given.levels, calibration=digest_of(windows),
        threads=torch.get_num_threads(),
    )  # fmt: skip
    with contextlib.closing(Work(given.work, decides)) if given.work else contextlib.nullcontext() as work:
        run(given, model, settings, windows, Shelf(work))


def run(
    given: argparse.Namespace, model: Model, settings: bitstack.Settings, windows: Tensor, shelf: Shelf
) -> None:
    def prepared() -> list[float]:
        build.prepare(model, windows, settings, shelf, "cpu", show)
        return []

    _, swept = once(shelf, "sweep", prepared)
    names = build.prepare(model, windows, settings, shelf, "cpu", quiet)
    sizes = scaling.measured(model, names, windows, settings.scaling, shelf, "cpu", quiet)
    scales = scaling.beside(model, sizes, True)
    stacks, spent = timed(lambda: bitstack.stacks(model, shelf, names, scales, {}, settings, show))
    predicted = once(shelf, "losses", lambda: [losses_seconds(model, shelf, stacks)])[0][0]
    some = curve.windows_for(windows, given.rescore_tokens)
    few = short(windows, given.score_tokens, given.score_window)
    print(
        f"{len(names)} matrices, {len(stacks.blocks)} blocks beside the first levels; "
        f"decomposed in {spent:.1f} s by this run\n"
        f"CPU seconds: sweep {swept:.1f} ({windows.numel()} tokens), losses of levels {predicted:.1f}; "
        f"rescored on {some.numel()} tokens, perplexity on {few.numel()} ({len(few)} windows)",
        flush=True,
    )
    stacks.dense(names[0], {})  # compiles
    orders, chosen = Orders(stacks, shelf, settings, some, few), given.sorts.split(",")
    ordered = {name: orders.of(name) for name in chosen}
    paid = {name: ordered[name][1] for name in chosen}
    whole = {name: paid[name] + (swept + predicted) * (name in SWEPT) for name in chosen}
    dear = paid.get("perplexity", float("nan"))
    print("\norder           scoring        all   perplexity is dearer by, and than all")
    for name in chosen:
        row = f"{name:14} {paid[name]:8.3f} s {whole[name]:8.2f} s"
        print(row + (f" {dear / paid[name]:10.1f} {dear / whole[name]:8.1f}" if name in SWEPT else ""))
    if "perplexity" in chosen and few.numel() < SCORE_TOKENS:
        passes = curve.windows_for(windows, SCORE_TOKENS)
        each = once(shelf, f"a pass {digest_of(passes)}", lambda: [a_pass(stacks, passes)])[0][0]
        dear = each * len(stacks.blocks)
        print(f"perplexity on {passes.numel()} tokens, by {MANY - FEW} passes of {each:.3f} s: {dear:.0f} s")
        for name in (name for name in chosen if name in SWEPT):
            print(f"{name:14} {'':21} {dear / paid[name]:10.1f} {dear / whole[name]:8.1f}")
    sys.stdout.flush()
    compare_all(given, model, stacks, shelf, {name: blocks for name, (blocks, _) in ordered.items()})
    if "perplexity" in chosen:
        explain(orders)


def compare_all(
    given: argparse.Namespace, model: Model, stacks: bitstack.Bitstacks, shelf: Shelf,
    orders: Mapping[str, list[Block]],
) -> None:  # fmt: skip
    """Print the curves of the orders, and each beside that of perplexity."""
    parts, there = np.linspace(0, 1, given.points), text(model, given)
    network, seen = Measured(stacks, there), digest_of(there)
    found = {}
    print(f"\nKL, nats a token, on {there.numel()} tokens, between the first levels and all")
    print(" " * 14 + " ".join(f"{100 * part:6.1f} %" for part in parts), flush=True)
    for name, blocks in orders.items():
        rows = []
        with show(f"curve of {name}", len(parts)) as step:
            for part in parts:
                state = prefix(stacks, blocks, part)
                plain = {
                    matrix: sorted([*key, size] for key, size in held.items())
                    for matrix, held in state.items()
                }
                unit = f"kl {digest_of_json(plain)} {seen}"
                rows.append(once(shelf, unit, lambda state=state: network.each(state))[0])
                step(1)
        found[name] = np.array(rows)
        print(f"{name:14}" + " ".join(f"{value:8.4f}" for value in found[name].mean(1)), flush=True)
    for name in found:
        if "perplexity" in found and name != "perplexity":
            compare(name, found[name], found["perplexity"], parts)


if __name__ == "__main__":
    main()
