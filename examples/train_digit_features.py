"""Train the small classifier of digits whose features the Fréchet distance of bntools is taken in.

usage: python examples/train_digit_features.py MNIST_DIR OUT.safetensors [--epochs 5] [--rows N]

MNIST_DIR is that of `bntools fetch mnist`. Three convolutions and two linear layers, those of
bntools.core.methods.image_features, are trained on digits moved by up to two pixels: AdamW under a one-cycle schedule,
seed 0, one thread. Prints the accuracy on the 10,000 test digits, which the metadata of the file (float16) record, too.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional

from bntools.core.datasets.labelled import read_idx
from bntools.core.methods.image_features import SIDE, DigitNet

BATCH, PEAK, SHIFT, SEED = 256, 3e-3, 2, 0


def digits(folder: Path, part: str, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [N, 1, 28, 28] in [0, 1] and labels [N]."""
    images = read_idx(folder / f"{part}-images-idx3-ubyte")[:rows]
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte")[:rows]
    return torch.from_numpy(images.astype(np.float32) / 255)[:, None], torch.from_numpy(
        labels.astype(np.int64)
    )


def moved(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A batch moved by up to SHIFT pixels each way."""
    dx, dy = torch.randint(0, 2 * SHIFT + 1, (2,), generator=generator).tolist()
    return functional.pad(images, (SHIFT,) * 4)[:, :, dy : dy + SIDE, dx : dx + SIDE]


def train(folder: Path, epochs: int, rows: int) -> tuple[DigitNet, float]:
    """The network after training, and its accuracy on test digits."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    images, labels = digits(folder, "train", rows)
    net = DigitNet()
    steps = epochs * -(-len(images) // BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), PEAK, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK, total_steps=steps, pct_start=0.15)
    for _ in range(epochs):
        for rows_ in torch.randperm(len(images), generator=generator).split(BATCH):
            loss = functional.cross_entropy(
                net(moved(images[rows_], generator)), labels[rows_], label_smoothing=0.05
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    net.eval()
    images, labels = digits(folder, "t10k", 10_000)
    with torch.no_grad():
        right = [
            int((net(x).argmax(1) == y).sum())
            for x, y in zip(images.split(1000), labels.split(1000), strict=True)
        ]
    return net, sum(right) / len(labels)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mnist", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=60_000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    net, accuracy = train(given.mnist, given.epochs, given.rows)
    weights = {name: tensor.half().contiguous() for name, tensor in net.state_dict().items()}
    facts = {
        "trained_on": f"MNIST, {given.rows:,} digits",
        "epochs": given.epochs,
        "seed": SEED,
        "test_accuracy": accuracy,
    }
    save_file(weights, given.out, {"format": "pt", "bntools.digit_features": json.dumps(facts)})
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
