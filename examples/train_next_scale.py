"""Train the next-scale model of digits that ships with bntools as `var:`.

usage: python examples/train_next_scale.py MNIST_DIR OUT.safetensors [--minutes 25] [--tokenizer-minutes 3] [--seed 0]

MNIST_DIR is what `bntools fetch mnist -o mnist/` writes. First the multi-scale quantizer, by binary cross-entropy of
the pixels and the usual commitment; then the transformer on its codes, after VARiant's progressive plan, but the other
way round: a subnet of four layers first, then full network and subnets in turn. Minutes are CPU minutes. The last
2,000 training digits are held out; the losses on them are printed and stand in the file.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from bntools.core.datasets.labelled import read_idx
from bntools.core.diffusion.next_scale.tokens import SIDES, ScaleTokenizer, scale_slices
from bntools.core.diffusion.next_scale.transformer import NO_LABEL, NextScaleTransformer

BATCH, HELD_OUT = 64, 2000
EARLY = 3  # scales that are always drawn at full depth while subnets are trained
SUBNETS = (6, 4, 6, 3)  # late depths of the steps that train a subnet, in turn
SEED_DEPTH, SEED_SHARE = 4, 0.45  # the subnet that is trained first, and for how much of the time


def fractions(minutes: float, steps: int | None = None) -> Iterator[float]:
    """How much of so many CPU minutes is over, or of so many steps, step by step."""
    if steps is not None:
        yield from (step / steps for step in range(steps))
        return
    began = time.process_time()
    while (done := (time.process_time() - began) / 60 / minutes) < 1:
        yield done


def train_tokenizer(images: torch.Tensor, minutes: float, steps: int | None = None) -> ScaleTokenizer:
    """Reconstruct digits through the codes; entries that nobody uses are moved to remainders at random."""
    model = ScaleTokenizer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=1e-4)
    used = torch.zeros(len(model.codebook))
    for step, done in enumerate(fractions(minutes, steps)):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1, (step + 1) / 50) * max(0.01, 1 - done)
        x = images[torch.randint(len(images), (BATCH,))]
        latent = model.encoder(2 * x - 1)
        if step == 0:
            restart(model, latent, torch.ones(len(used), dtype=torch.bool))
        codes, partial = model.quantize(latent)
        final = partial[-1]
        logits = model.decoder(latent + (final - latent).detach())
        pull = sum((part - latent.detach()).square().mean() for part in partial) / len(SIDES)
        loss = F.binary_cross_entropy_with_logits(logits, x) + 0.2 * pull
        loss = loss + 0.1 * (latent - final.detach()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        used += torch.bincount(codes.flatten(), minlength=len(used))
        if step % 50 == 49:
            error = (torch.sigmoid(logits) - x).square().mean().item()
            print(
                f"tokenizer ({done:.0%}): mse {error:.5f}, {int((used > 0).sum())} entries used", flush=True
            )
            if done < 0.6:
                restart(model, latent, used < 5)
            used.zero_()
    return model


@torch.no_grad()
def restart(model: ScaleTokenizer, latent: torch.Tensor, dead: torch.Tensor) -> None:
    """Move some entries to remainders of this batch, drawn from all scales alike."""
    _, partial = model.quantize(latent)
    rest = [latent, *(latent - part for part in partial[:-1])]
    rows = [
        F.adaptive_avg_pool2d(r, s).flatten(2).transpose(1, 2).flatten(0, 1)
        for r, s in zip(rest, SIDES, strict=True)
    ]
    rows = torch.cat([row[torch.randint(len(row), (256,))] for row in rows])
    model.codebook[dead] = rows[torch.randint(len(rows), (int(dead.sum()),))]


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal by five Newton-Schulz steps, for the matrices of the blocks."""

    def __init__(self, parameters: list[torch.nn.Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None or not weight.grad.any():
                    continue
                state = self.state[weight]
                mean = state.setdefault("mean", torch.zeros_like(weight)).lerp_(weight.grad, 0.05)
                update = orthogonal(weight.grad.lerp(mean, 0.95))
                rows, columns = weight.shape
                weight.mul_(1 - 0.02 * group["lr"]).add_(
                    update, alpha=-group["lr"] * max(1, rows / columns) ** 0.5
                )


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """The nearest matrix of singular values about 1, by the quintic of Muon."""
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if tall else x


def depths_of(step: int, done: float, layers: int) -> list[int]:
    """First one subnet alone, whose other layers still pass their input on; then full network and subnets in turn."""
    if done < SEED_SHARE:
        return [SEED_DEPTH] * len(SIDES)
    late = layers if step % 2 else SUBNETS[step // 2 % len(SUBNETS)]
    return [layers] * EARLY + [late] * (len(SIDES) - EARLY)


def train_transformer(
    tokenizer: ScaleTokenizer,
    images: torch.Tensor,
    labels: torch.Tensor,
    minutes: float,
    *,
    steps: int | None = None,
    out: Path,
) -> NextScaleTransformer:
    """Cross-entropy of every code at every scale; one label in ten is hidden."""
    model = NextScaleTransformer()
    matrices = [p for block in model.blocks for p in block.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if all(p is not m for m in matrices)]
    optimizers = [
        Muon(matrices, 0.02),
        torch.optim.AdamW(others, lr=4e-3, betas=(0.9, 0.95), weight_decay=0.01),
    ]
    rates = [0.02, 4e-3]
    size = len(images) - HELD_OUT
    held = tokenizer.encode(images[size : size + 500]), labels[size : size + 500]
    order, smooth, saved = torch.randperm(size), 0.0, 0.0
    for step, done in enumerate(fractions(minutes, steps)):
        for optimizer, rate in zip(optimizers, rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1, (step + 1) / 40) * min(1, (1 - done) / 0.6)
        start = step * BATCH % (size - BATCH)
        rows = order[start : start + BATCH]
        y = labels[rows].clone()
        y[torch.rand(BATCH) < 0.1] = NO_LABEL
        with torch.no_grad():
            x = tokenizer.encode(images[rows])
            inputs = tokenizer.inputs(x)
        logits = model.taught(inputs, y, depths_of(step, done, model.layers))
        loss = F.cross_entropy(logits.flatten(0, 1), x.flatten())
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        smooth = loss.item() if step == 0 else 0.98 * smooth + 0.02 * loss.item()
        if step % 50 == 49:
            print(f"transformer {step + 1} ({done:.0%}): loss {smooth:.4f}", flush=True)
        if done > saved + 0.15:
            saved = done
            save(tokenizer, model, held_out(tokenizer, model, *held), out)
    return model


@torch.no_grad()
def held_out(
    tokenizer: ScaleTokenizer, model: NextScaleTransformer, codes: torch.Tensor, labels: torch.Tensor
) -> dict:
    """Nats a token of each scale, at full depth and at each late depth."""
    result = {}
    for depth in (model.layers, *sorted(set(SUBNETS), reverse=True)):
        depths = [model.layers] * EARLY + [depth] * (len(SIDES) - EARLY)
        loss = torch.cat([
            F.cross_entropy(model.taught(tokenizer.inputs(x), y, depths).transpose(1, 2), x, reduction="none")
            for x, y in zip(codes.split(250), labels.split(250), strict=True)
        ])  # fmt: skip
        result[str(depth)] = [round(float(loss[:, where].mean()), 4) for where in scale_slices()]
    print(json.dumps(result), flush=True)
    return result


def save(tokenizer: ScaleTokenizer, model: NextScaleTransformer | None, losses: dict, out: Path) -> None:
    """Both models in one file of half-precision tensors."""
    tensors = {f"tokenizer.{name}": value for name, value in tokenizer.state_dict().items()}
    if model is not None:
        tensors |= {f"transformer.{name}": value for name, value in model.state_dict().items()}
    metadata = {
        "format": "pt", "bntools.format": "1", "bntools.kind": "next-scale", "bntools.next_scale": json.dumps({
            "entries": len(tokenizer.codebook), "channels": tokenizer.codebook.shape[1], "sides": SIDES,
            **({} if model is None else {
                "width": model.norm.weight.shape[0], "heads": model.blocks[0].heads, "layers": model.layers,
                "hidden": model.blocks[0].up.out_features, "early": EARLY,
            }), "held_out_nats": losses,
        }),
    }  # fmt: skip
    save_file({name: value.half().contiguous() for name, value in tensors.items()}, out, metadata)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--tokenizer-minutes", type=float, default=3)
    parser.add_argument("--tokenizer", type=Path, help="take the quantizer of this file")
    parser.add_argument("--steps", type=int, help="of each model, in place of minutes")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    images = torch.from_numpy(read_idx(given.data / "train-images-idx3-ubyte").copy())[:, None].float() / 255
    labels = torch.from_numpy(read_idx(given.data / "train-labels-idx1-ubyte").copy()).long()
    if given.tokenizer:
        tokenizer = ScaleTokenizer()
        tensors = load_file(given.tokenizer)
        tokenizer.load_state_dict(
            {
                n.removeprefix("tokenizer."): t.float()
                for n, t in tensors.items()
                if n.startswith("tokenizer.")
            }
        )
    else:
        tokenizer = train_tokenizer(images[:-HELD_OUT], given.tokenizer_minutes, given.steps)
        save(tokenizer, None, {}, given.out)
    tokenizer.requires_grad_(False)
    latent = tokenizer.quantize(tokenizer.encoder(2 * images[-500:] - 1))[1][-1]
    error = (tokenizer.decode(latent) - images[-500:]).square().mean()
    print(
        f"held-out reconstruction: mse {float(error):.5f}; {math.log2(len(tokenizer.codebook)):.0f} bits a token",
        flush=True,
    )
    model = train_transformer(tokenizer, images, labels, given.minutes, steps=given.steps, out=given.out)
    held = tokenizer.encode(images[-HELD_OUT:]), labels[-HELD_OUT:]
    save(tokenizer, model, held_out(tokenizer, model, *held), given.out)


if __name__ == "__main__":
    main()
