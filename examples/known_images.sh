#!/bin/sh
# Pairs of pictures that tell a known amount of each other, seen through their principal components: a blob at a place,
# a rectangle of four edges. Place and edges of X and of Y are normal numbers of a chosen information, and a picture loses
# nothing of them.
# usage: known_images.sh [FOLDER] [ROWS]
set -eu
BNTOOLS=${BNTOOLS:-bntools}
PYTHON=${PYTHON:-python3}
out=${1:-images}
rows=${2:-5000}
mkdir -p "$out"
"$PYTHON" - "$out" "$rows" <<'CODE'
import sys
import numpy as np
from bntools.core.datasets.activations import write_activations
from scipy.special import ndtr
SIDE, TRUTHS = 16, (4, 2, 1, 0.5)
grid = (np.arange(SIDE) + 0.5) / SIDE
def blobs(z):
    """A bump of width 0.2 at a place in the unit square, z [n, 2]."""
    across, up = (np.exp(-np.square(grid - ndtr(z[:, i, None])) / 0.08) for i in range(2))
    return (up[:, :, None] * across[:, None, :]).reshape(len(z), -1)
def covered(start, end):
    """The share of each cell between start and end."""
    return np.clip((np.minimum(end, grid + 0.5 / SIDE) - np.maximum(start, grid - 0.5 / SIDE)) * SIDE, 0, 1)
def rectangles(z):
    """A rectangle of four edges, cells at an edge by their covered area; z [n, 4]."""
    u = ndtr(z)
    first, second = (covered((0.45 * u[:, 2 * i])[:, None], (0.55 + 0.45 * u[:, 2 * i + 1])[:, None]) for i in range(2))
    return (second[:, :, None] * first[:, None, :]).reshape(len(z), -1)
for name, picture, width in (("blobs", blobs, 2), ("rectangles", rectangles, 4)):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((int(sys.argv[2]), width))
    tensors = {"inputs": picture(x)}
    for truth in TRUTHS:
        r = np.sqrt(1 - np.exp(-2 * truth / width))
        y = r * x + np.sqrt(1 - r * r) * rng.standard_normal(x.shape)
        tensors[f"epoch.0.layer.{truth}"] = picture(y)
    write_activations(f"{sys.argv[1]}/{name}.safetensors", {k: v.astype(np.float32) for k, v in tensors.items()}, force=True)
CODE
for name in blobs rectangles; do
    components=$([ $name = blobs ] && echo 4 || echo 8)
    "$BNTOOLS" ib-analyze "$out/$name.safetensors" --noise absolute --sigma 0.001 --components "$components" \
        --queries "$rows" --json
done
