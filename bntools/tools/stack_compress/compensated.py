"""A stack block by block: the layers of each linear make up for what was lost before it at their size.

A linear is fed something else at every size of the file, so one target would not do. The model is walked through with
all first planes there, and the base and first plane are aimed at what the walk finds; then with all second planes. The
planes above are aimed at the weights themselves, as little is lost by then.

Half of the correction of a weight is taken: the loss is flat about its minimum, and cells that lie further away from
the weight leave more out of reach of the planes above.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from bntools.core.model import Model
from bntools.core.prefix import Prefix
from bntools.core.sensitivity import embeddings, sweep_tokens
from bntools.core.shelf import Shelf
from bntools.core.threads import in_order
from bntools.tools.stack_compress import build, encode
from bntools.tools.stack_compress.build import IN_FLIGHT, Progress, moments_of, weight
from bntools.tools.stack_compress.encode import Recipe, Stacked

WALKS = (1, 2)  # planes that are there
SHARE = 0.5  # of the correction


def compensate(
    model: Model, shelf: Shelf, names: list[str], alpha: float, recipe: Recipe, windows: Tensor, device: str,
    progress: Progress,
) -> None:  # fmt: skip
    """Put the first layers of every matrix that a walk comes by on the shelf, to be finished by `build.build`."""
    wanted = {name for name in names if name in model.linears}
    outside = [name for name in names if name not in wanted]
    for planes in sorted({min(planes, recipe.planes) for planes in WALKS}):
        layer = _Layer(model, shelf, alpha, recipe, planes)
        made = layer.code({name: weight(model, name) for name in outside})
        embedding = next((made[name] for name in outside if embeddings(model)[name][1]), None)
        with progress(f"compensating, {planes} planes", sweep_tokens(model, windows)) as step:
            walk = Prefix(model, wanted, windows, embedding=embedding, device=device, mixed=True, step=step)
            for todo in walk:
                todo.place(layer.code(todo.targets))


class _Layer:
    """The base and so many planes of many matrices, or those of them that are not there yet."""

    def __init__(self, model: Model, shelf: Shelf, alpha: float, recipe: Recipe, planes: int) -> None:
        self.model, self.shelf, self.alpha, self.recipe, self.planes = model, shelf, alpha, recipe, planes

    def code(self, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Bring matrices up to this layer, one a thread, aimed towards these targets [out, in]; their values then."""

        def work(name: str) -> tuple[str, Tensor]:
            w = weight(self.model, name)
            return name, encode.values(self._made(name, w + SHARE * (targets[name] - w)))

        sizes = self.model.entries
        return dict(in_order(work, list(targets), lambda name: 16 * sizes[name].numel, IN_FLIGHT))

    def _made(self, name: str, target: Tensor) -> Stacked:
        """Up to this layer; from the shelf if an earlier run made it."""
        found, moments = build.layers(self.shelf, name), moments_of(self.shelf, name)
        if found is not None and len(found.planes) >= self.planes:
            return found.first(self.planes)
        found = found or encode.base(target, moments, self.alpha, self.recipe)
        found = encode.refine(target, moments, found, self.recipe, self.planes)
        build.put_layers(self.shelf, name, found)
        return found
