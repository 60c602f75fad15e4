"""A stack block by block: the first layers of each linear make up for what was lost before it at their size.

A linear is fed something else at every size of the file. So two models, one with nothing but the bases and one with all
first planes there, are walked through side by side with the original, and base and first plane of a linear are each
aimed at what the walk at its size finds. Planes above are aimed at the weights themselves, as little is lost by then.

A part of the correction of a weight is taken, of the base's the lesser: the loss is flat about its minimum, and layers
whose targets lie far apart leave more to each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import Tensor

from bntools.core.blockwise.prefix import Prefix
from bntools.core.importance.sensitivity import embeddings, sweep_tokens
from bntools.core.model.model import Model
from bntools.core.progress import Progress
from bntools.core.system.threads import in_order
from bntools.core.work.array_store import Shelf
from bntools.tools.stack_compress import build, encode
from bntools.tools.stack_compress.build import IN_FLIGHT, moments_of, weight
from bntools.tools.stack_compress.encode import Recipe

SHARES = (0.25, 0.5)  # of the correction, for the base and the first plane


def compensate(
    model: Model, shelf: Shelf, names: list[str], alpha: float, recipe: Recipe, windows: Tensor, device: str,
    progress: Progress,
) -> None:  # fmt: skip
    """Put the first layers of every matrix that the walk comes by on the shelf, to be finished by `build.build`."""
    wanted = {name for name in names if name in model.linears}
    outside = [name for name in names if name not in wanted]
    walks = min(len(SHARES), recipe.first + 1)
    code = partial(_code, model, shelf, alpha, recipe, walks)
    made = code(dict.fromkeys(outside))
    tokens = sweep_tokens(model, windows) // 2 * (1 + walks)
    with progress("compensating", tokens) as step:
        used = [name for name in outside if embeddings(model)[name][1]]
        coded = made[used[0]] if used else [None] * walks
        for steps in Prefix(model, wanted, windows, embeddings=coded, device=device, mixed=True, step=step):
            values = code({name: [one.targets[name] for one in steps] for name in steps[0].targets})
            for at, one in enumerate(steps):
                one.place({name: by_walk[at] for name, by_walk in values.items()})


def _code(
    model: Model, shelf: Shelf, alpha: float, recipe: Recipe, walks: int,
    targets: Mapping[str, list[Tensor] | None],
) -> dict[str, list[Tensor]]:  # fmt: skip
    """Code the first layers of matrices, one a thread; their values in each walk.

    targets: [out, in] of each walk, or None for the weight itself. Those that an earlier run made are taken from the
    shelf.
    """

    def work(name: str) -> tuple[str, list[Tensor]]:
        made = build.layers(shelf, name)
        if made is None:
            w = weight(model, name)
            aims = [w] * (recipe.first + 1)
            for at, target in enumerate(targets[name] or ()):
                aims[at] = w + SHARES[at] * (target - w)
            made = encode.begin(aims, moments_of(shelf, name), alpha, recipe)
            build.put_layers(shelf, name, made)
        return name, [encode.values(made.first(planes)) for planes in range(walks)]

    sizes = model.entries
    return dict(in_order(work, list(targets), lambda name: 40 * sizes[name].numel, IN_FLIGHT))
