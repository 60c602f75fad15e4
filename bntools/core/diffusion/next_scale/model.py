"""The embedded next-scale model of handwritten digits, `var:`, or another file of that kind: load and draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bntools.core.artifact.reader import Artifact, open_path
from bntools.core.diffusion.next_scale.tokens import SIDES, TOKENS, ScaleTokenizer, scale_slices
from bntools.core.diffusion.next_scale.transformer import (
    NO_LABEL,
    NextScaleTransformer,
    ScaleCache,
    WholeCache,
)
from bntools.core.errors import bad_input, usage
from bntools.core.progress import Step, no_step
from bntools.kernels.counter_random import uniforms

NAME = "var:"
KIND = "next-scale"
FILE = Path(__file__).resolve().parents[3] / "data" / "next_scale.safetensors"
BATCH = 50
"""Images a batch: on a CPU larger ones gain nothing."""
_STREAM = 31

Caches = Callable[[], Sequence[ScaleCache]]
"""Makes the caches of a batch, one a layer."""


class NextScaleModel(NamedTuple):
    """tokenizer and transformer; early: scales that were always at full depth in training; facts: of the file."""

    tokenizer: ScaleTokenizer
    transformer: NextScaleTransformer
    early: int
    facts: dict[str, Any]

    @property
    def layers(self) -> int:
        return self.transformer.layers

    def whole_caches(self) -> list[WholeCache]:
        """Caches that hold every key and value, one a layer."""
        return [WholeCache() for _ in range(self.layers)]


class Drawing(NamedTuple):
    """images [N, 1, 28, 28] in (0, 1), codes [N, TOKENS], cache_bytes: keys and values at the end, an image."""

    images: Tensor
    codes: Tensor
    cache_bytes: int


def load(name: str = NAME) -> NextScaleModel:
    """The embedded model, or that of a file. Raises BnError (exit 2, 3) for a path that holds no such model."""
    path = FILE if name == NAME else Path(name)
    if not path.is_file():
        raise usage(f"no next-scale model at {name}", f"{NAME} is the embedded one")
    with open_path(path) as file:
        return read_model(file)


def read_model(file: Artifact) -> NextScaleModel:
    """The model of an open artifact of kind `next-scale`. Raises BnError (exit 3) for any other."""
    facts = file.json("bntools.next_scale", dict)
    if file.kind != KIND or tuple(facts.get("sides", ())) != SIDES or "layers" not in facts:
        raise bad_input(f"{file.label} is no next-scale model", f"{NAME} is the embedded one")
    tokenizer = ScaleTokenizer(facts["entries"], facts["channels"])
    transformer = NextScaleTransformer(
        facts["entries"], facts["channels"], width=facts["width"], heads=facts["heads"], layers=facts["layers"],
        hidden=facts["hidden"],
    )  # fmt: skip
    tensors = {name: file.tensor(name).float() for name in file.names()}
    try:
        for prefix, module in (("tokenizer.", tokenizer), ("transformer.", transformer)):
            module.load_state_dict(
                {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            )
            module.eval().requires_grad_(False)
    except RuntimeError as error:
        raise bad_input(f"{file.label}: {str(error).splitlines()[-1].strip()}") from None
    return NextScaleModel(tokenizer, transformer, facts["early"], facts)


def parse_depths(text: str, layers: int, early: int) -> tuple[int, ...]:
    """Layers of each scale from `12@early,4@late`, `12@3,4@2` (depth @ number of scales) or `4` for all scales.

    early is the model's own first scales, late the rest. Raises BnError (exit 2).
    """
    counts = {"early": early, "late": len(SIDES) - early, "": len(SIDES), "all": len(SIDES)}
    depths: list[int] = []
    for word in text.split(","):
        depth, at, where = word.strip().partition("@")
        count = counts.get(where, int(where) if where.isdecimal() else 0)
        if not depth.isdecimal() or not count or (at and not where):
            raise usage(
                f"--depth {text}: {word or 'nothing'} is not LAYERS@early, @late or @SCALES",
                "--depth 12@early,4@late",
            )
        if not 1 <= int(depth) <= layers:
            raise usage(
                f"--depth {text}: {depth} is not in 1..{layers}, the layers of the model",
                f"--depth {layers}@early,{layers // 2}@late",
            )
        depths += [int(depth)] * count
    if len(depths) != len(SIDES):
        raise usage(
            f"--depth {text} names {len(depths)} scales of {len(SIDES)}",
            f"--depth {layers}@{early},{layers // 2}@{len(SIDES) - early}",
        )
    return tuple(depths)


def race(seed: int, start: int, count: int, entries: int) -> Tensor:
    """Exponential variables [count, TOKENS, entries] of images start ... start + count - 1, whatever the batch.

    argmax(p / e) is a draw from p; the same variables for other depths or caches draw the same code wherever p agrees.
    """
    each = TOKENS * entries
    u = uniforms(seed, _STREAM, start * each, count * each)
    return torch.from_numpy(-np.log1p(-u).astype(np.float32)).clamp_min_(1e-30).view(count, TOKENS, entries)


def draw_codes(logits: Tensor, noise: Tensor, *, temperature: float = 1.0, top_p: float = 1.0) -> Tensor:
    """Codes [N, T] from logits and exponential variables [N, T, entries]; top_p: only entries that hold this mass."""
    if temperature == 0:
        return logits.argmax(-1)
    p = torch.softmax(logits / temperature, -1)
    if top_p < 1:
        ranked, order = p.sort(-1, descending=True)
        outside = ranked.cumsum(-1) - ranked >= top_p
        p = p.masked_fill(outside.gather(-1, order.argsort(-1)), 0.0)
    return (p / noise).argmax(-1)


@torch.inference_mode()
def generate(
    model: NextScaleModel, labels: Tensor, seed: int = 0, *, depths: Sequence[int] | None = None,
    caches: Caches | None = None, temperature: float = 1.0, top_p: float = 1.0, guidance: float = 1.0,
    start: int = 0, batch: int = BATCH, advance: Step = no_step,
) -> Drawing:  # fmt: skip
    """Images of labels [N] (0 to 9, 10 for any).

    depths: layers of each scale, all of them by default; caches: makes the caches of a batch, whole ones by default;
    guidance: logits without the class plus so many times what the class adds; where it is not 1, a batch has twice the
    rows, those without the class last. start: number of the first image, so that a run in parts draws the same.
    """
    depths = depths or [model.layers] * len(SIDES)
    images, codes, nbytes = [], [], 0
    for first in range(0, len(labels), batch):
        rows = labels[first : first + batch]
        made = caches() if caches else model.whole_caches()
        noise = race(seed, start + first, len(rows), len(model.tokenizer.codebook))
        both = rows if guidance == 1.0 else torch.cat([rows, torch.full_like(rows, NO_LABEL)])
        total = torch.zeros(len(rows), model.tokenizer.codebook.shape[1], SIDES[-1], SIDES[-1])
        drawn = []
        for scale, where in enumerate(scale_slices()):
            inputs = model.tokenizer.pooled(total, scale)
            inputs = inputs.repeat(len(both) // len(rows), 1, 1)
            logits = model.transformer.step(inputs, both, scale, depth=depths[scale], caches=made)
            if guidance != 1.0:
                with_class, without = logits.chunk(2)
                logits = without + guidance * (with_class - without)
            drawn.append(draw_codes(logits, noise[:, where], temperature=temperature, top_p=top_p))
            total = total + model.tokenizer.contribution(drawn[-1], scale)
        images.append(model.tokenizer.decode(total))
        codes.append(torch.cat(drawn, 1))
        nbytes = sum(getattr(cache, "nbytes", 0) for cache in made) // len(rows)
        advance(len(rows))
    return Drawing(torch.cat(images), torch.cat(codes), nbytes)


@torch.inference_mode()
def taught_logits(
    model: NextScaleModel, codes: Tensor, labels: Tensor, *, depths: Sequence[int] | None = None,
    caches: Sequence[ScaleCache] | None = None,
) -> list[Tensor]:  # fmt: skip
    """Logits [N, side^2, entries] of each scale of known codes [N, TOKENS], scale by scale through the caches.

    With caches that forget, their distance to the logits of whole ones is what forgetting costs.
    """
    depths = depths or [model.layers] * len(SIDES)
    made = model.whole_caches() if caches is None else caches
    inputs = model.tokenizer.inputs(codes)
    return [
        model.transformer.step(inputs[:, where], labels, scale, depth=depths[scale], caches=made)
        for scale, where in enumerate(scale_slices())
    ]
