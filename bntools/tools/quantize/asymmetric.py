"""GPTQ block by block, each linear aimed at the original's outputs for what the quantized layers before it give."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from torch import Tensor

from bntools.core.blockwise.prefix import Prefix
from bntools.core.model.model import Model
from bntools.core.system.threads import in_order
from bntools.tools.quantize.calibrated import coded_linear
from bntools.tools.quantize.cost import IN_FLIGHT, coding_bytes
from bntools.tools.quantize.fisher import Moments
from bntools.tools.quantize.pipeline import Choice, Item, Result, quantize
from bntools.tools.quantize.settings import Settings


def asymmetric(
    model: Model, items: list[Item], choices: Mapping[str, Choice], settings: Settings, moments: Moments | None,
    windows: Tensor, device: str, step: Callable[[int], None],
) -> Iterator[Result]:  # fmt: skip
    """GPTQ for every linear that sees all tokens, on the targets of `core.prefix`; then what is left, as it is.

    moments: H by name as a sweep has it; without, H is E[x~ x~^T] of what the quantized layers before give.
    """
    by_name = {item.name: item for item in items if item.grid and item.linear}
    done = set()
    for (found,) in Prefix(model, set(by_name), windows, device=device, mixed=True, step=step):

        def one(name: str, targets=found.targets, shared=found.moments) -> tuple[Result, Tensor]:
            hessian = moments.get(name)[0] if moments else shared
            return coded_linear(model, by_name[name], choices.get(name), settings, hessian, targets[name])

        def size(name: str, targets=found.targets) -> int:
            return coding_bytes(targets[name].numel(), targets[name].shape[1])

        values = {}
        for name, (result, dense) in zip(
            found.targets, in_order(one, list(found.targets), size, IN_FLIGHT), strict=True
        ):
            values[name] = dense
            done.add(name)
            yield result
        found.place(values)
    yield from quantize(model, [item for item in items if item.name not in done], choices, settings)
