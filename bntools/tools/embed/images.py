"""Rows from images: through a vision model, a small network's last hidden layer, or the pixels themselves."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bntools.core.architecture.sites import Reached, watching
from bntools.core.datasets import labelled, networks
from bntools.core.errors import bad_input, require, usage
from bntools.tools.embed.settings import Settings
from bntools.tools.embed.states import Piece

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm")
PIXELS = "pixels:"
BATCH = 64


class Pictures(NamedTuple):
    """Either arrays x [n, ...] or files; labels [n], where there are any, and the names of the classes."""

    arrays: NDArray[Any] | None
    files: list[Path]
    labels: NDArray[np.int64] | None
    classes: list[str]

    def __len__(self) -> int:
        return len(self.files) if self.arrays is None else len(self.arrays)


class Prepare(NamedTuple):
    """How a vision model wants its images: side in pixels, mean and std a channel."""

    side: int
    mean: list[float]
    std: list[float]


def find(source: str, split: str) -> Pictures:
    """Images of a folder (each subfolder a class), or of labelled data: a folder of IDX files, .npz, .safetensors.

    Raises BnError: exit 2 for a path that is not there, 3 for a folder without images.
    """
    folder = Path(source)
    if not folder.exists():
        raise usage(f"no images at {source}", "a folder of images, or of IDX files: bntools fetch mnist")
    if folder.is_file() or any(folder.glob("*idx3*")):
        data = labelled.read(source)
        part = data.test if split == "test" else data.train
        return Pictures(part.x, [], part.y, [str(i) for i in range(data.classes)])
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not files:
        raise bad_input(f"no images in {source}", f"files ending in {', '.join(SUFFIXES)}")
    parents = sorted({p.parent.relative_to(folder).as_posix() for p in files})
    labels = np.array([parents.index(p.parent.relative_to(folder).as_posix()) for p in files])
    return Pictures(None, files, labels if len(parents) > 1 else None, parents if len(parents) > 1 else [])


def columns_of(pictures: Pictures, start: int, stop: int) -> dict[str, Any]:
    columns: dict[str, Any] = {"doc": np.arange(start, stop, dtype=np.int32)}
    if pictures.labels is not None:
        columns["label"] = pictures.labels[start:stop]
    if pictures.files:
        columns["names"] = [path.name for path in pictures.files[start:stop]]
    return columns


@torch.no_grad()
def network_rows(
    module: torch.nn.Module, pictures: Pictures, norm: tuple[float, float], layer: int
) -> Iterator[Piece]:
    """Outputs of a small network's layer: 0 the input of the last linear map, else of module number `layer`."""
    if pictures.arrays is None:
        raise usage("a small network takes labelled data, not files of images", "--images mnist/")
    modules = [m for m in module.modules() if not list(m.children())]
    if not 0 <= layer <= len(modules):
        raise usage(f"--layer {layer}: the network has {len(modules)} modules", "0 is what its last one sees")
    seen: list[torch.Tensor] = []
    target = modules[-1] if layer == 0 else modules[layer - 1]
    hook = target.register_forward_hook(
        lambda m, a, out: seen.append((a[0] if layer == 0 else out).flatten(1))
    )
    try:
        for start in range(0, len(pictures), BATCH):
            stop = min(start + BATCH, len(pictures))
            module(networks.standardized(pictures.arrays[start:stop], *norm))
            yield Piece([seen.pop()], columns_of(pictures, start, stop))
    finally:
        hook.remove()


def pixel_rows(pictures: Pictures, side: int) -> Iterator[Piece]:
    """Pixels from 0 to 1; files are resized to side x side."""
    for start in range(0, len(pictures), BATCH):
        stop = min(start + BATCH, len(pictures))
        x = _pixels(pictures, start, stop, side)
        yield Piece([x.reshape(stop - start, -1)], columns_of(pictures, start, stop))


def read_prepare(folder: Path, config: dict[str, Any]) -> Prepare:
    """Of preprocessor_config.json; without it the size of config.json and means and deviations of 0.5."""
    path = folder / "preprocessor_config.json"
    value = json.loads(path.read_bytes()) if path.is_file() else {}
    side: Any = value.get("crop_size") or value.get("size") or {}
    vision = config.get("vision_config") or config
    if isinstance(side, dict):
        side = side.get("height") or side.get("shortest_edge") or vision.get("image_size", 224)
    return Prepare(int(side), value.get("image_mean", [0.5] * 3), value.get("image_std", [0.5] * 3))


@torch.no_grad()
def vision_rows(model: Any, pictures: Pictures, prepare: Prepare, settings: Settings) -> Iterator[Piece]:
    """Image embeddings of a vision model: its projected feature, or its states at a layer, pooled."""
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (prepare.mean, prepare.std))
    for start in range(0, len(pictures), BATCH):
        stop = min(start + BATCH, len(pictures))
        x = _pixels(pictures, start, stop, prepare.side)
        x = (x.expand(-1, 3, -1, -1) - mean) / std
        rows = _features(model, x, settings)
        rows = torch.nn.functional.normalize(rows, dim=1) if settings.normalize else rows
        yield Piece([rows], columns_of(pictures, start, stop))


def _features(model: Any, x: torch.Tensor, settings: Settings) -> torch.Tensor:
    if not settings.layers:
        if hasattr(model, "get_image_features"):
            out = model.get_image_features(pixel_values=x)
            return out if isinstance(out, torch.Tensor) else out.pooler_output
        out = getattr(model, "base_model", model)(pixel_values=x).last_hidden_state
        return out[:, 0] if settings.pool == "cls" else out.mean(1)
    tower = getattr(model, "vision_model", model)
    seen: list[torch.Tensor] = []

    def see(index: int, states: torch.Tensor) -> None:
        seen.append(states)

    with watching(tower, [(settings.layers[0], settings.site)], see, stop=True), contextlib.suppress(Reached):
        getattr(tower, "base_model", tower)(pixel_values=x)
    return seen[0][:, 0] if settings.pool == "cls" else seen[0].mean(1)


def _pixels(pictures: Pictures, start: int, stop: int, side: int) -> torch.Tensor:
    """Images [n, channels, side, side] from 0 to 1."""
    if pictures.arrays is not None:
        x = torch.from_numpy(pictures.arrays[start:stop].astype(np.float32))
        x = x / 255 if pictures.arrays.dtype == np.uint8 else x
        x = x.unsqueeze(1) if x.ndim == 3 else x
        if side and x.shape[-1] != side:
            x = torch.nn.functional.interpolate(x, (side, side), mode="bilinear", antialias=True)
        return x
    image = require("PIL.Image", "plot")
    pixels = []
    for path in pictures.files[start:stop]:
        try:
            with image.open(path) as picture:
                pixels.append(np.asarray(_square(picture.convert("RGB"), side or 32), np.float32) / 255)
        except OSError as error:
            raise bad_input(f"{path} is no readable image: {str(error)[:100]}") from None
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)


def _square(picture: Any, side: int) -> Any:
    """Resize the shorter edge to `side` and cut the middle."""
    width, height = picture.size
    scale = side / min(width, height)
    size = max(round(width * scale), side), max(round(height * scale), side)
    picture = picture.resize(size)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    return picture.crop((left, top, left + side, top + side))
