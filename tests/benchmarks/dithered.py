"""The fair reference model: SmolLM2 off the 4-bit grid it was shipped on.

usage: python tests/benchmarks/dithered.py MODEL_DIR OUT_DIR

The weights of the GGUF lie on 16 levels for each 32 inputs (Q4_1), so a 4-bit code aligned to those groups loses
nothing. Each weight of each linear layer but the head gets uniform noise of its group's own step, U(-1/2, 1/2) step,
seed 0, in the order of the module tree; the result, in float16, is what divergence is measured against.
"""

from __future__ import annotations

import sys

import torch
import transformers
from torch import Tensor, nn

GROUP, LEVELS, SEED = 32, 15, 0


def step_of(groups: Tensor) -> Tensor:
    """Step of the grid under each row of `groups` [n, 32]: its range over the number of smallest gaps in it.

    Gaps under a fortieth of the range are rounding of the stored type, not steps. A constant row has step 0.
    """
    ordered = groups.sort(1).values
    gaps, span = ordered.diff(dim=1), ordered[:, -1] - ordered[:, 0]
    smallest = gaps.masked_fill(gaps <= span[:, None] / 40, 1e9).amin(1)
    steps = (span / smallest).round().clamp(1, LEVELS)
    return torch.where(span > 0, span / steps, torch.zeros_like(span))


@torch.no_grad()
def dither(model: nn.Module) -> None:
    """Add the noise to the linears of a float32 model, in place."""
    generator = torch.Generator().manual_seed(SEED)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name != "lm_head":
            groups = module.weight.view(-1, GROUP)
            noise = torch.rand(groups.shape, generator=generator) - 0.5
            groups.add_(noise * step_of(groups)[:, None])


def main(source: str, target: str) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    dither(model)
    model.half().save_pretrained(target)
    transformers.AutoTokenizer.from_pretrained(source).save_pretrained(target)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        print(__doc__)
        sys.exit()  # `make bench` runs every script without arguments
    main(*sys.argv[1:])
