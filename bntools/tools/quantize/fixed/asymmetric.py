"""GPTQ block by block, each linear aimed at the original's outputs for what the quantized layers before it give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from bntools.core.blockwise.prefix import Prefix
from bntools.core.progress import Step, no_step
from bntools.core.system.threads import in_order
from bntools.tools.quantize.fixed.calibrated import coded_linear
from bntools.tools.quantize.fixed.fisher import Moments
from bntools.tools.quantize.fixed.gptq import IN_FLIGHT, coding_bytes
from bntools.tools.quantize.fixed.rounding import quantize
from bntools.tools.quantize.plan import Choice, Result, Task


def asymmetric(
    task: Task, choices: Mapping[str, Choice], windows: Tensor, *, moments: Moments | None = None,
    device: str = "cpu", step: Step = no_step,
) -> Iterator[Result]:  # fmt: skip
    """GPTQ for every linear that sees all tokens, on the targets of `core.prefix`; then what is left, as it is.

    moments: H by name as a sweep has it; without, H is E[x~ x~^T] of what the quantized layers before give.
    """
    by_name = {item.name: item for item in task.chosen if item.linear}
    done = set()
    for (aimed,) in Prefix(task.model, set(by_name), windows, device=device, mixed=True, step=step):

        def coded(name: str, targets=aimed.targets, shared=aimed.moments) -> tuple[Result, Tensor]:
            hessian = moments.get(name)[0] if moments else shared
            return coded_linear(task, by_name[name], choices.get(name), hessian, targets[name])

        def size(name: str, targets=aimed.targets) -> int:
            return coding_bytes(targets[name].numel(), targets[name].shape[1])

        values = {}
        for name, (result, dense) in zip(
            aimed.targets, in_order(coded, list(aimed.targets), size, IN_FLIGHT), strict=True
        ):
            values[name] = dense
            done.add(name)
            yield result
        aimed.place(values)
    yield from quantize(task.of([item for item in task.items if item.name not in done]), choices)
