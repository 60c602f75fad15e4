"""Depth schedules of the embedded next-scale model, and Re-ttention, beside full depth and dense attention.

usage: python tests/benchmarks/next_scale.py MNIST_DIR [--images 1000] [--seed 100]

CPU seconds of one thread, the ways in turn batch by batch; Fréchet distances in the features of the digits' classifier
against the 10,000 test digits, beside the distance of real digits of the same number. The seed is none that a choice
was made on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention as dense

from bntools.core.diffusion.next_scale.model import generate, load, parse_depths
from bntools.core.methods.image_features import classify, features, floor, frechet
from bntools.core.methods.sample_scores.images import digit_reference
from bntools.kernels.attention.blocks import band, sparse_attention
from bntools.kernels.attention.rettention import full_step, sparse_step

SCHEDULES = ("12", "12@early,6@late", "12@early,4@late", "6")
TOKENS, HEADS, WIDTH, SPARSITY = 1024, 8, 64, 0.9


def depths(data: str, images: int, *, seed: int, top_p: float, guidance: float, batch: int = 50) -> None:
    """Time and quality of each schedule from the same draws."""
    model, real = load(), digit_reference(data)
    labels = torch.arange(10).repeat(images // 10)
    seconds, parts = dict.fromkeys(SCHEDULES, 0.0), {name: [] for name in SCHEDULES}
    nbytes = {}
    for turn, start in enumerate(range(0, images, batch)):
        for name in SCHEDULES[turn % len(SCHEDULES) :] + SCHEDULES[: turn % len(SCHEDULES)]:
            began = time.process_time()
            drawing = generate(
                model, labels[start : start + batch], seed, depths=parse_depths(name, model.layers, model.early),
                top_p=top_p, guidance=guidance, start=start,
            )  # fmt: skip
            seconds[name] += time.process_time() - began
            parts[name].append(drawing.images)
            nbytes[name] = drawing.cache_bytes
    least = floor(real.features, images, 8, seed)
    print(f"{images} images, seed {seed}, top-p {top_p}, guidance {guidance}; real digits of that number: Frechet "
          f"{least.mean:.2f} +- {least.se:.2f}")  # fmt: skip
    print(
        "| depth | ms an image | times faster | cache kB | Frechet | of full depth's | right class | from full |"
    )
    print("|---|---|---|---|---|---|---|---|")
    full = torch.cat(parts["12"])
    base = frechet(features(full), real.features)
    for name in SCHEDULES:
        x = torch.cat(parts[name])
        distance = frechet(features(x), real.features)
        right = float((classify(x).argmax(1) == labels.numpy()).mean())
        apart = float(((x - full).flatten(1).norm(dim=1) / (2 * full - 1).flatten(1).norm(dim=1) * 2).mean())
        cells = [
            name, f"{1000 * seconds[name] / images:.2f}", f"{seconds['12'] / seconds[name]:.2f}",
            f"{nbytes[name] / 1000:.0f}", f"{distance:.2f}", f"{distance / base:.3f}", f"{right:.3f}", f"{apart:.3f}",
        ]  # fmt: skip
        print(f"| {' | '.join(cells)} |", flush=True)


def fastest(calls: dict[str, Callable[[], object]], rounds: int = 15) -> dict[str, float]:
    """Least CPU milliseconds of each call, in turn."""
    least = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.process_time()
            call()
            least[name] = min(least[name], 1000 * (time.process_time() - began))
    return least


def attention() -> None:
    """Speed at 90 % sparsity and 1,024 tokens, and error while queries, keys and values move."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 1, HEADS, TOKENS, WIDTH, generator=generator).unbind()
    table = band(TOKENS, SPARSITY)
    _, statistics = full_step(q, k, v, table)
    mask = table.mask()
    times = fastest({
        "dense": lambda: dense(q, k, v), "masked": lambda: dense(q, k, v, attn_mask=mask),
        "re-ttention": lambda: sparse_step(q, k, v, table, statistics),
        "full step with statistics": lambda: full_step(q, k, v, table),
    })  # fmt: skip
    print(f"\n{TOKENS} tokens, {HEADS} heads of {WIDTH}, sparsity {table.sparsity:.3f}")
    print("| attention | ms | times faster |\n|---|---|---|")
    for name, least in times.items():
        print(f"| {name} | {least:.2f} | {times['dense'] / least:.2f} |")
    print(
        "\n| motion since the full step | kind of rows | plain sparse, error | re-ttention, error | ratio |"
    )
    print("|---|---|---|---|---|")
    place = torch.linspace(0, 12 * np.pi, TOKENS)
    waves = torch.stack([torch.sin(place / 2**i + j) for i in range(8) for j in range(8)], 1)
    for kind, extra in (("white", 0.0), ("nearby alike", 1.0)):
        first = [x + extra * waves for x in (q, k, v)]
        _, statistics = full_step(*first, table)
        for motion in (0.02, 0.1, 0.3):
            noise = torch.randn(3, 1, HEADS, TOKENS, WIDTH, generator=generator).unbind()
            now = [(1 - motion**2) ** 0.5 * a + motion * b for a, b in zip(first, noise, strict=True)]
            whole = dense(*now)
            plain = float((sparse_attention(*now, table)[0] - whole).norm() / whole.norm())
            ours = float((sparse_step(*now, table, statistics) - whole).norm() / whole.norm())
            print(f"| {motion} | {kind} | {plain:.4f} | {ours:.4f} | {ours / plain:.3f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--guidance", type=float, default=1.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    attention()
    print()
    depths(given.data, given.images, seed=given.seed, top_p=given.top_p, guidance=given.guidance)


if __name__ == "__main__":
    main()
