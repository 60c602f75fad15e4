"""Scale distillation: factors on the rows and columns of frozen weights, trained against the original's logits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bntools.core.architecture import output_head
from bntools.core.errors import usage
from bntools.core.progress import Step
from bntools.core.system.threads import single_threaded

Logits = Callable[[Tensor], Tensor]
Exponents = dict[str, Tensor]
_POSITIONS = 128  # positions whose logits exist at once
_BATCH = 2  # windows a step
_WARM_UP = 5
_CHECKS = 4  # times the held-out text is looked at on the way
_MOST_HELD_OUT = 8  # windows


class State(NamedTuple):
    """Trained factors of every linear by module path: rows [out], cols [in]; and norm gains by parameter name."""

    rows: dict[str, Tensor]
    cols: dict[str, Tensor]
    gains: dict[str, Tensor]


@dataclass(frozen=True)
class Trained:
    """The best state on held-out text, with its KL divergence there and that of the start (nats a token)."""

    state: State
    start: float
    end: float
    steps: int


class WindowSplit(NamedTuple):
    """Calibration windows [n, L]: indices to train on in their order, and those held out."""

    train: list[int]
    held_out: list[int]


def split(count: int, steps: int, seed: int) -> WindowSplit:
    """A tenth of `count` windows held out, evenly spaced; the others shuffled. BnError (exit 2) on fewer than two."""
    if count < 2:
        raise usage(
            "distillation needs two calibration windows at least", "a longer text, or more --calib-tokens"
        )
    held = list(range(min(5, count - 1), count, 10))[:_MOST_HELD_OUT]
    left = [index for index in range(count) if index not in held]
    order = torch.randperm(len(left), generator=torch.Generator().manual_seed(seed)).tolist()
    return WindowSplit([left[at] for at in order][: _BATCH * steps], held)


def training(windows: Tensor, steps: int, seed: int) -> Tensor:
    """The windows that are not held out: what else is fitted before must not have seen those either."""
    held = set(split(len(windows), steps, seed).held_out)
    return windows[[index for index in range(len(windows)) if index not in held]]


def logits_of(model: Any, head: Logits | None = None) -> Logits:
    """Logits of a causal language model on states [..., d]: its output head, or another one, with the config's
    scaling and soft cap."""
    config = model.config.get_text_config()
    last: Any = head or model.get_output_embeddings()
    scale = getattr(config, "logit_scale", None) or 1.0
    divisor = getattr(config, "logits_scaling", None) or 1.0
    cap = getattr(config, "final_logit_softcapping", None)

    def logits(hidden: Tensor) -> Tensor:
        out = last(hidden).float() * (scale / divisor)
        return out if not cap else cap * (out / cap).tanh()

    return output_head.checked(model, logits, head)


def final_states(model: Any, ids: Tensor) -> Tensor:
    """What the output head is fed for one window [L] of token ids: [L, d]."""
    return output_head.states(model, ids[None])[0]


@torch.no_grad()
def targets(model: Any, windows: Tensor, wanted: Sequence[int], step: Step) -> dict[int, Tensor]:
    """The original's final states [L, d] of the wanted windows."""
    wanted_states = {}
    with single_threaded() as (pool, _):
        for index, states in zip(
            wanted, pool.map(lambda at: _frozen(model, windows[at]), wanted), strict=True
        ):
            wanted_states[index] = states
            step(windows.shape[1])
    return wanted_states


@torch.no_grad()
def _frozen(model: Any, ids: Tensor) -> Tensor:
    return final_states(model, ids)


def divergence(
    hidden: Tensor, target: Tensor, student: Logits, teacher: Logits, gradient: bool = True,
    head: Tensor | None = None,
) -> tuple[float, Tensor, Tensor | None]:  # fmt: skip
    """Sum over positions of KL(teacher || student) over the whole vocabulary, and its gradients at `hidden` [L, d] and,
    if given, the student's `head` [vocabulary, d].

    At the logits the gradient is softmax(student) - softmax(teacher); some positions' logits exist at once.
    """
    total, parts, at_head = 0.0, [], None if head is None else torch.zeros_like(head)
    for start in range(0, len(hidden), _POSITIONS):
        piece = hidden[start : start + _POSITIONS].detach().requires_grad_(gradient)
        with torch.no_grad():
            log_t = teacher(target[start : start + _POSITIONS]).log_softmax(-1)
        with torch.set_grad_enabled(gradient):
            logits = student(piece)
        log_s = logits.detach().log_softmax(-1)
        p = log_t.exp()
        total += float((p * (log_t - log_s)).sum(dtype=torch.float64))
        if gradient:
            wanted = [piece] if head is None else [piece, head]
            part, *more = torch.autograd.grad(logits, wanted, log_s.exp_().sub_(p))
            parts.append(part)
            if at_head is not None:
                at_head += more[0]
    return total, torch.cat(parts) if parts else torch.zeros_like(hidden), at_head


class Student:
    """A model with frozen weights and factors on some linears: y = rows * (W (cols * x)) + bias.

    linears: module paths. gains: names of norm gains [d] to train. teacher: the original's head.
    Each window is computed by one thread and the windows are summed in order: the result does not depend on the
    number of threads.
    """

    def __init__(
        self, model: Any, linears: Sequence[str], gains: Sequence[str], windows: Tensor, known: dict[int, Tensor],
        teacher: Logits,
    ) -> None:  # fmt: skip
        self.model, self.windows, self.known, self.teacher = model, windows, known, teacher
        self.logits = logits_of(model)
        model.requires_grad_(False)
        parameters = dict(model.named_parameters())
        rows, cols = {}, {}
        for path in linears:
            out, inner = _shape(model.get_submodule(path))
            rows[path] = torch.ones(out, device=windows.device, requires_grad=True)
            cols[path] = torch.ones(inner, device=windows.device, requires_grad=True)
        self.state = State(rows, cols, {name: parameters[name].requires_grad_(True) for name in gains})

    @property
    def parameters(self) -> list[Tensor]:
        return [tensor for part in self.state for tensor in part.values()]

    def copy(self) -> State:
        return State(*({key: tensor.detach().clone() for key, tensor in part.items()} for part in self.state))

    @torch.no_grad()
    def load(self, state: State) -> None:
        """Take the values of a state."""
        for ours, theirs in zip(self.state, state, strict=True):
            for key, tensor in ours.items():
                tensor.copy_(theirs[key])

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """While it lasts, the linears are multiplied by their factors."""
        hooks = []
        for path, rows in self.state.rows.items():
            module, cols = self.model.get_submodule(path), self.state.cols[path]
            hooks += [
                module.register_forward_pre_hook(lambda module, args, cols=cols: (args[0] * cols, *args[1:])),
                module.register_forward_hook(lambda module, args, out, rows=rows: _times(module, out, rows)),
            ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def gradients(self, index: int) -> tuple[float, Sequence[Tensor]]:
        """KL summed over a window's positions, and its gradients at `parameters`."""
        hidden = final_states(self.model, self.windows[index])
        total, gradient, _ = divergence(hidden, self.known[index], self.logits, self.teacher)
        slopes = torch.autograd.grad(
            hidden, self.parameters, gradient, allow_unused=True, materialize_grads=True
        )
        return total, slopes

    def held_out(self, pool: Any, indices: Sequence[int]) -> float:
        """Mean KL a token on some windows."""

        @torch.no_grad()
        def work(index: int) -> float:
            hidden = final_states(self.model, self.windows[index])
            return divergence(hidden, self.known[index], self.logits, self.teacher, gradient=False)[0]

        return sum(pool.map(work, indices)) / (len(indices) * self.windows.shape[1])

    def measure(self, state: State, indices: Sequence[int]) -> float:
        """Mean KL a token of a state on some windows."""
        self.load(state)
        with self.hooked(), single_threaded() as (pool, _):
            return self.held_out(pool, indices)


def _shape(module: nn.Module) -> tuple[int, int]:
    """(outputs, inputs) of an nn.Linear or of a transposed one (Conv1D)."""
    weight: Any = module.weight
    shape = tuple(weight.shape)
    return shape if isinstance(module, nn.Linear) else shape[::-1]


def _times(module: nn.Module, out: Tensor, rows: Tensor) -> Tensor:
    bias = getattr(module, "bias", None)
    return out * rows if bias is None else (out - bias) * rows + bias


def train(student: Student, windows: WindowSplit, steps: int, step: Step, rate: float = 3e-3) -> Trained:
    """Train the factors and gains for at most `steps` steps of two windows.

    Adam (0.9, 0.95), warm-up and cosine; stops when the held-out KL has grown twice in a row, keeps its best state,
    and the start where nothing is better.
    """
    parameters = student.parameters
    optimizer = torch.optim.Adam(parameters, lr=rate, betas=(0.9, 0.95))
    every = max(1, -(-steps // _CHECKS))
    best, worse, done = student.copy(), 0, 0
    with student.hooked(), single_threaded() as (pool, _):
        start = lowest = student.held_out(pool, windows.held_out)
        for done in range(1, steps + 1):
            for group in optimizer.param_groups:
                group["lr"] = rate * _schedule(done - 1, steps)
            _set_gradients(student, pool, _batch(windows.train, done - 1))
            optimizer.step()
            step(_BATCH)
            if done % every and done < steps:
                continue
            least = student.held_out(pool, windows.held_out)
            worse = worse + 1 if not least < lowest else 0
            if least < lowest:
                best, lowest = student.copy(), least
            if worse == 2:
                break
    student.load(best)
    return Trained(best, start, lowest, done)


def _batch(order: list[int], at: int) -> list[int]:
    """The windows of a step, from the beginning again after the last one."""
    return [order[(at * _BATCH + offset) % len(order)] for offset in range(min(_BATCH, len(order)))]


def _schedule(at: int, steps: int) -> float:
    """Share of the rate at a step: linear warm-up, then half a cosine down to almost nothing."""
    warm = min(1.0, (at + 1) / min(_WARM_UP, steps))
    return warm * (0.5 + 0.5 * math.cos(math.pi * at / steps))


def _set_gradients(student: Student, pool: Any, batch: list[int]) -> None:
    """Mean gradient a token of a batch, summed in the order of its windows."""
    tokens = len(batch) * student.windows.shape[1]
    sums: list[Tensor] | None = None
    for _, gradients in pool.map(student.gradients, batch):
        sums = (
            list(gradients)
            if sums is None
            else [one + other for one, other in zip(sums, gradients, strict=True)]
        )
    assert sums is not None
    for parameter, gradient in zip(student.parameters, sums, strict=True):
        parameter.grad = gradient / tokens


def rounded(state: State, octave: int, dtypes: dict[str, torch.dtype]) -> tuple[State, Exponents, Exponents]:
    """A state as it can be stored: factors 2^(k / octave), gains in their own types; with the k of rows and cols."""
    rows, cols = (
        {path: _exponents(factors, octave) for path, factors in part.items()}
        for part in (state.rows, state.cols)
    )
    powers = [
        {path: (k.double() / octave).exp2().float() for path, k in part.items()} for part in (rows, cols)
    ]
    gains = {name: gain.to(dtypes[name]).float() for name, gain in state.gains.items()}
    return State(powers[0], powers[1], gains), rows, cols


def _exponents(factors: Tensor, octave: int) -> Tensor:
    return (octave * factors.double().clamp(min=1e-3).log2()).round().to(torch.int16).cpu()
