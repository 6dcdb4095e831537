"""An op that is compiled once for every size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from choices import by
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from bench.kernels import dispatch


def compiles_for_any(loss: Callable[..., Tensor], cases: Iterable[Sequence[Tensor]]) -> None:
    """Compile `loss` by its kernels for the first of `cases`, and once more for all others.

    Each case is the inputs, of another size than those before it.
    """
    torch.compiler.reset()
    backend = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    for inputs in cases:
        leaves = [x.detach().requires_grad_() for x in inputs]
        with dispatch.using("triton"):
            value = compiled(*leaves)
            got = [value.detach(), *torch.autograd.grad(value, leaves)]
        torch.testing.assert_close(got, by("triton", loss, inputs))
    assert backend.frame_count == 2
