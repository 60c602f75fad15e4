"""Train the digit model that `bntools sample-bottleneck` ships with.

usage: python examples/train_flow_model.py MNIST_DIR OUT_DIR [--minutes 20] [--seed 0]

MNIST_DIR is what `bntools fetch mnist -o MNIST_DIR` writes. Rectified flow on pixels in [-1, 1], digits padded to
32 x 32 and the same digits at 16 x 16, through one SD3Transformer2DModel of 1.3 million weights with patches of 4 x 4.
The low resolution is the low band of the orthonormal DCT, so that it shows what a good antialiasing filter shows. The
condition is a vector a class (10: any digit) plus log2(size / 16) times a vector for size. AdamW, the learning rate
falls linearly to zero over the CPU time given. Written are an exponential moving average of the weights (config.json,
flow.safetensors in float16), mean and variance of the digits' DCT (spectrum.safetensors) and the losses on held-out
digits (log.json).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import SD3Transformer2DModel
from safetensors.torch import save_file
from torch import Tensor, nn

from bntools.core.datasets.labelled import read_idx

CONFIG = {
    "sample_size": 32, "patch_size": 4, "in_channels": 1, "out_channels": 1, "num_layers": 4,
    "attention_head_dim": 32, "num_attention_heads": 3, "joint_attention_dim": 32, "caption_projection_dim": 96,
    "pooled_projection_dim": 32, "pos_embed_max_size": 8,
}  # fmt: skip
PEAK, BATCH, WARM, DROPPED, AVERAGE = 2e-3, 48, 60, 0.1, 0.995
HIGH = (0.1, 0.55)
"""Share of the steps at 32 x 32 at the start and from a third of the time on."""


class Flow(nn.Module):
    """The transformer and the vectors that stand for class and size."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = SD3Transformer2DModel(**CONFIG)
        self.classes = nn.Parameter(torch.randn(11, 32))
        self.size = nn.Parameter(torch.randn(32))

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """Velocity at noise level t [N] of images x [N, 1, S, S]."""
        condition = self.classes[label] + np.log2(x.shape[-1] / 16) * self.size
        return self.transformer(
            hidden_states=x, encoder_hidden_states=condition[:, None], pooled_projections=condition,
            timestep=1000 * t, return_dict=False,
        )[0]  # fmt: skip


def cosines(n: int) -> np.ndarray:
    """Orthonormal DCT-II matrix [n, n]."""
    k, i = np.meshgrid(np.arange(n), np.arange(n), indexing="ij")
    return np.where(k == 0, np.sqrt(1 / n), np.sqrt(2 / n) * np.cos(np.pi * k * (2 * i + 1) / (2 * n)))


def halved(x: Tensor) -> Tensor:
    """Images at half the size: the low band of the DCT."""
    n = x.shape[-1]
    a = torch.tensor(cosines(n // 2).T @ cosines(n)[: n // 2] / np.sqrt(2), dtype=x.dtype)
    return a @ x @ a.T


def digits(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """Images [N, 1, 32, 32] in [-1, 1] and their labels."""
    x = read_idx(next(folder.glob(f"{split}-images*"))).astype(np.float32) / 127.5 - 1
    y = read_idx(next(folder.glob(f"{split}-labels*"))).astype(np.int64)
    return torch.from_numpy(
        np.pad(x, ((0, 0), (2, 2), (2, 2)), constant_values=-1)[:, None]
    ), torch.from_numpy(y)


def loss(model: Flow, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """Squared error of the velocity; t is logit-normal at 16 pixels, at 32 moved to the same signal-to-noise ratio."""
    t = torch.sigmoid(torch.randn(len(x), generator=generator))
    rho = x.shape[-1] / 16
    t = rho * t / (1 + (rho - 1) * t)
    noise = torch.randn(x.shape, generator=generator)
    level = t[:, None, None, None]
    return ((model((1 - level) * x + level * noise, t, y) - (noise - x)) ** 2).mean()


def write_spectrum(x: Tensor, out: Path) -> None:
    """Mean and variance [1, 32, 32] of the DCT coefficients of images."""
    basis = torch.tensor(cosines(x.shape[-1]), dtype=x.dtype)
    c = basis @ x @ basis.T
    out.mkdir(parents=True, exist_ok=True)
    save_file({"mean": c.mean(0), "variance": c.var(0)}, out / "spectrum.safetensors", {"format": "pt"})


def train(folder: Path, out: Path, minutes: float, seed: int) -> None:
    """Train for so many minutes of CPU time; writes the average every minute."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    x, y = digits(folder, "train")
    write_spectrum(x, out)
    held_x, held_y = (part[:500] for part in digits(folder, "t10k"))
    model, log, start, step, written = Flow(), [], time.process_time(), 0, 0.0
    average = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, betas=(0.9, 0.98), weight_decay=0.01)
    while (done := (time.process_time() - start) / (60 * minutes)) < 1:
        optimizer.param_groups[0]["lr"] = PEAK * min(1, (step + 1) / WARM) * (1 - done)
        rows = torch.randint(len(x), (BATCH,), generator=generator)
        dropped = torch.rand(BATCH, generator=generator) < DROPPED
        high = torch.rand(1, generator=generator).item() < HIGH[done > 1 / 3]
        images = x[rows] if high else halved(x[rows])
        loss(model, images, torch.where(dropped, 10, y[rows]), generator).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        with torch.no_grad():
            rate = min(AVERAGE, step / (step + 10))
            for name, value in model.state_dict().items():
                average[name].lerp_(value, 1 - rate)
        if time.process_time() - start - written > 60 or step == 1:
            written = time.process_time() - start
            log.append({"step": step, "cpu": round(written, 1), **held_out(average, held_x, held_y)})
            print(json.dumps(log[-1]), flush=True)
            write(average, log, out)
    log.append({"step": step, "cpu": round(60 * minutes, 1), **held_out(average, held_x, held_y)})
    print(json.dumps(log[-1]), flush=True)
    write(average, log, out)


@torch.no_grad()
def held_out(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> dict[str, float]:
    """Losses on digits that were not trained on, at both sizes, always with the same noise."""
    model = Flow()
    model.load_state_dict(weights)
    each = {16: halved(x), 32: x}
    return {
        f"loss_{n}": round(float(loss(model, v, y, torch.Generator().manual_seed(1))), 4)
        for n, v in each.items()
    }


def write(weights: dict[str, Tensor], log: list[dict[str, float]], out: Path) -> None:
    """config.json, flow.safetensors in float16, log.json."""
    out.mkdir(parents=True, exist_ok=True)
    config = {"_class_name": "SD3Transformer2DModel", **CONFIG}
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    (out / "log.json").write_text(json.dumps(log, indent=1) + "\n")
    small = {name: value.half().contiguous() for name, value in weights.items()}
    save_file(small, out / "flow.new", {"format": "pt"})
    (out / "flow.new").replace(out / "flow.safetensors")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    train(given.folder, given.out, given.minutes, given.seed)
