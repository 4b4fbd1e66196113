"""Every candidate's numbers, bit for bit those of a run alone, whatever the batch.

A matrix product may add up in another order when it has more rows: kernels are chosen by shape. So a picture depends in
its last bits on how many others were made with it, and a threshold somewhere turns bits into pixels. Inside
`batch_invariant(n)` the operations that mix rows into one kernel call (convolutions, linear layers, matrix products,
attention) are computed particle by particle. All else, that is norms, activations and arithmetic, is done at once,
since it treats each row for itself; two exceptions, odd sizes and odd layouts, are dealt with below.

Many of these kernels do not depend on the batch after all. That is found out, per operation and shape: the first time
that a network runs, its operations are computed both apart and together. If not one bit differs among at least a
thousand numbers, that shape is computed together from then on.

Layout: guidance stacks k copies of the n particles, [uncond_1..n, cond_1..n], and some models flatten L tokens into the
leading dimension, so that it reads (k, n, L). Particle i owns [:, i].
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pipelines.evaluations import leading_rows

ENOUGH = 1024
"""An agreement counts from this many compared numbers on; smaller operations are always computed apart."""

FIRST_ONLY = frozenset(
    {
        functional.linear,
        functional.conv1d,
        functional.conv2d,
        functional.conv3d,
        functional.conv_transpose1d,
        functional.conv_transpose2d,
        functional.conv_transpose3d,
        torch.conv1d,
        torch.conv2d,
        torch.conv3d,
    }
)
"""Operations whose first argument has the particles; the others are weights."""

ALL = frozenset(
    {
        torch.matmul,
        torch.Tensor.matmul,
        torch.Tensor.__matmul__,
        torch.bmm,
        torch.Tensor.bmm,
        torch.baddbmm,
        torch.addmm,
        functional.scaled_dot_product_attention,
    }
)
"""Operations in which each argument with the leading dimension of the first may have the particles."""

TRANSCENDENTAL = frozenset(
    {
        functional.silu,
        functional.gelu,
        functional.mish,
        functional.softplus,
        functional.softmax,
        torch.softmax,
        torch.sigmoid,
        torch.tanh,
        torch.exp,
        torch.sin,
        torch.cos,
        torch.Tensor.softmax,
        torch.Tensor.sigmoid,
        torch.Tensor.tanh,
        torch.Tensor.exp,
        torch.Tensor.sin,
        torch.Tensor.cos,
    }
)
"""Functions that are computed in vectors and, for the last few numbers, one by one, with another last bit."""

SOFTMAX = frozenset({functional.softmax, torch.softmax, torch.Tensor.softmax})
"""Of these, the ones that run along the leading dimension belong to all particles together."""

VECTOR = 64
"""A multiple of the numbers that the CPU takes at once: so long rows have no last few numbers."""

RESHAPES = frozenset({torch.reshape, torch.Tensor.reshape, torch.Tensor.view})
"""Operations that give a leading dimension of one an arbitrary stride, by which later kernels choose."""

_agreed: dict[object, bool] = {}
"""Operation and shapes → whether together equals apart, to the bit."""


@contextmanager
def batch_invariant(n: int, modules: Sequence[nn.Module] = ()) -> Iterator[None]:
    """Make the numbers of each of n particles independent of the others, to the bit.

    Args:
        n: particles in the batch, at least 1; the leading dimension of everything that has particles is a multiple.
        modules: the networks of a pipeline, so that the guidance copies k can be read off what they are given: within
            them a leading dimension reads (k, n, L), and around them (1, n, L), as it does everywhere without any.
    """
    if n == 1:
        yield
        return
    mode = _Apart(n, always=not modules)
    hooks = [hook for module in modules for hook in mode.watch(module)]
    try:
        with mode:
            yield
    finally:
        for hook in hooks:
            hook.remove()


class _Apart(TorchFunctionMode):
    """Computes row-mixing operations particle by particle, unless they are known not to mix."""

    def __init__(self, n: int, *, always: bool) -> None:
        super().__init__()
        self.n, self.copies, self.inside, self.always = n, 1, always, always

    def watch(self, module: nn.Module) -> tuple[Any, Any]:
        """Hooks that tell the number of guidance copies while the module runs: none if it reads text, not latents."""

        def enter(module: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
            rows = leading_rows(args, kwargs)
            self.inside = True
            self.copies = rows // self.n if rows % self.n == 0 else 1

        def leave(module: nn.Module, args: object, output: object) -> None:
            self.copies, self.inside = 1, self.always

        return module.register_forward_pre_hook(enter, with_kwargs=True), module.register_forward_hook(leave)

    def __torch_function__(  # type: ignore[no-untyped-def]
        self,
        func: Callable[..., Any],
        types: object,
        args=(),  # noqa: ANN001
        kwargs=None,  # noqa: ANN001
    ) -> object:
        kwargs = kwargs or {}
        if self.copies == 0 or (func in SOFTMAX and _along_particles(args, kwargs)):
            return func(*args, **kwargs)
        if func in FIRST_ONLY or func in ALL or func in TRANSCENDENTAL:
            call = _Call(func, args, kwargs)
            if call.rows and call.rows % self.n == 0 and not (func in TRANSCENDENTAL and call.fills_vectors(self.n)):
                return self._run(call)
        result = func(*args, **kwargs)
        return self._as_if_alone(args[0], result) if func in RESHAPES and args else result

    def _as_if_alone(self, before: Tensor, after: Tensor) -> Tensor:
        """Undo a channels-last layout that a reshape has found only because there are several particles."""
        if self.copies != 1 or after.ndim not in (4, 5) or not before.shape[:1] == after.shape[:1] == (self.n,):
            return after
        order = torch.channels_last if after.ndim == 4 else torch.channels_last_3d
        if after.is_contiguous() or not after.is_contiguous(memory_format=order):
            return after
        alone = before[:1].reshape(1, *after.shape[1:])
        return after if _suggests(alone, order) else after.contiguous()

    def _run(self, call: "_Call") -> Tensor:
        copies = 1 if call.rows % (self.n * self.copies) else self.copies
        key = (call.key(), self.n, copies)
        if _agreed.get(key):
            return call.together()
        apart = call.apart(self.n, copies)
        if key not in _agreed and self._worth_asking(apart, call):
            _agreed[key] = torch.equal(apart, call.together())
        return apart

    def _worth_asking(self, result: Tensor, call: "_Call") -> bool:
        """Whether an agreement would prove something, and might be used: a decoder runs once, a denoiser often."""
        return self.inside and result.numel() >= ENOUGH and call.is_generic()


class _Call:
    """One call of an operation, with the arguments that have particles in their leading dimension told apart."""

    def __init__(self, func: Callable[..., Any], args: Sequence[object], kwargs: Mapping[str, object]) -> None:
        self.func, self.args, self.kwargs = func, list(args), dict(kwargs)
        first = args[0] if args else kwargs.get("input", kwargs.get("query"))
        self.rows = len(first) if isinstance(first, Tensor) and first.ndim > 1 else 0
        everything: dict[int | str, object] = dict(enumerate(args))
        everything.update(kwargs)
        candidates = (
            everything if func in ALL else {name: value for name, value in everything.items() if value is first}
        )
        self.batched: dict[int | str, Tensor] = {
            name: value
            for name, value in candidates.items()
            if isinstance(value, Tensor) and len(value.shape) > 1 + (value is not first) and len(value) == self.rows
        }
        self.shared = {name: value for name, value in everything.items() if name not in self.batched}

    def fills_vectors(self, n: int) -> bool:
        """Whether each particle's part is a whole number of CPU vectors."""
        return all(value.numel() // n % VECTOR == 0 for value in self.batched.values())

    def key(self) -> object:
        """Everything that the choice of a kernel can depend on."""
        values = tuple((name, _signature(value)) for name, value in (*self.batched.items(), *self.shared.items()))
        return self.func, torch.get_num_threads(), values

    def together(self) -> Tensor:
        """The result of the call as it was made."""
        result: Tensor = self.func(*self.args, **self.kwargs)
        return result

    def apart(self, n: int, copies: int) -> Tensor:
        """The same result, computed in n calls."""
        parts = {name: _split(value, n, copies) for name, value in self.batched.items()}
        results = []
        for i in range(n):
            values = {**self.shared, **{name: part[i] for name, part in parts.items()}}
            args = [values[position] for position in range(len(self.args))]
            results.append(self.func(*args, **{name: values[name] for name in self.kwargs}))
        return _join(results, copies)

    def is_generic(self) -> bool:
        """Whether the numbers are varied enough for an agreement to prove something."""
        return all(2 * int(value.count_nonzero()) > value.numel() for value in self.batched.values())


def _suggests(alone: Tensor, order: torch.memory_format) -> bool:
    """Whether kernels take a tensor with a leading dimension of one to be laid out in this order."""
    return torch.empty_like(alone, memory_format=torch.preserve_format).is_contiguous(memory_format=order) and (
        alone.stride(0) >= alone.numel()
    )


def _along_particles(args: Sequence[object], kwargs: Mapping[str, object]) -> bool:
    """Whether a softmax normalises over the leading dimension."""
    values, dim = args[0] if args else kwargs["input"], kwargs.get("dim", args[1] if len(args) > 1 else None)
    return not isinstance(values, Tensor) or not isinstance(dim, int) or dim % max(1, values.ndim) == 0


def _signature(value: object) -> object:
    if isinstance(value, Tensor):
        return tuple(value.shape), value.stride(), value.dtype, value.device
    return tuple(value) if isinstance(value, list) else value


def _split(value: Tensor, n: int, copies: int) -> Sequence[Tensor]:
    """The n particles of a tensor (k·n·L, ...), each (k·L, ...) and laid out in memory as it would be alone."""
    length = len(value) // (n * copies)
    if copies == 1:
        return torch.split(value, length)
    shape = value.shape[1:]
    if value.is_contiguous():
        moved = value.view(copies, n, length, *shape).transpose(0, 1)
        return moved.contiguous().view(n, copies * length, *shape).unbind()
    pieces = torch.split(value, length)
    return [_gather(pieces[i::n], value.stride()) for i in range(n)]


def _gather(pieces: Sequence[Tensor], stride: tuple[int, ...]) -> Tensor:
    length, *shape = pieces[0].shape
    alone = pieces[0].new_empty(0).new_empty_strided((length * len(pieces), *shape), stride)
    for k, piece in enumerate(pieces):
        alone[k * length : (k + 1) * length] = piece
    return alone


def _join(results: Sequence[Tensor], copies: int) -> Tensor:
    """The inverse of `_split`, with the memory layout of the results."""
    if copies == 1:
        return torch.cat(list(results))
    n, (rows, *shape) = len(results), results[0].shape
    length = rows // copies
    if results[0].is_contiguous():
        stacked = torch.stack(list(results)).view(n, copies, length, *shape)
        return stacked.transpose(0, 1).reshape(n * rows, *shape)
    return torch.cat([result[k * length : (k + 1) * length] for k in range(copies) for result in results])
