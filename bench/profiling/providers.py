"""Who computes an op: our implementations, torch.compile, and the peers that are installed."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from shutil import which

import torch
import torch._dynamo
from torch import Tensor

from bench.kernels import dispatch
from bench.kernels.precision import HALVES
from bench.profiling.case import Call, Case, Inputs, Peer, Size

OURS = ("reference", "triton", "triton-ieee")
RAISED = "computes in float32, products too, whatever the inputs are"
AS_GIVEN = "products of half-precision inputs as they are, with float32 sums"
ROUNDED = "products of half-precision inputs as they are, rounded to it; log-sum-exp in float32"


@dataclass(frozen=True)
class Provider:
    """One that computes an op; `build` makes the call, unless `reason` says why there is none."""

    name: str
    build: Callable[[Size, Inputs], Call]
    notes: tuple[str, ...] = ()
    reason: str | None = None

    @property
    def compiles(self) -> bool:
        """Whether every size costs seconds of compilation."""
        return self.name in ("compile", "eager-compile", "flex_attention")


def providers(
    case: Case, device: torch.device, dtype: torch.dtype, *, peers: bool
) -> Iterator[Provider]:
    """All of them, those that cannot be measured here included, ours first."""
    half = dtype in HALVES
    raised: tuple[str, ...] = (RAISED,) if half and case.op != "ema_update" else ()
    yield Provider("reference", partial(_given, _using("reference", case.call)), raised)
    for name, products in _fused(case, dtype).items():
        call = _using("triton", case.call, products)
        said = AS_GIVEN if half else f"products of float32: {products}"
        notes = (said,) if case.products else ()
        yield Provider(name, partial(_given, call), notes, _no_triton(device))
    compiled = _using("reference", torch.compile(case.call, dynamic=False))
    yield Provider("compile", partial(_given, compiled), raised, _no_compiler(device))
    if case.eager is not None and half:
        yield Provider("eager", partial(_given, case.eager), (ROUNDED,))
        compiled = torch.compile(case.eager, dynamic=False)
        made = partial(_given, compiled)
        yield Provider("eager-compile", made, (ROUNDED,), _no_compiler(device))
    for peer in case.peers if peers else ():
        yield Provider(peer.name, peer.build, peer.notes, _missing(peer, device))


@contextmanager
def compiling() -> Iterator[None]:
    """Let every size be compiled: by default the ninth and all after it would run as they are.

    The compiler's own warnings are not the reader's business.
    """
    torch.compiler.reset()
    settings = {"recompile_limit": 64, "fail_on_recompile_limit_hit": True}
    with warnings.catch_warnings(), torch._dynamo.config.patch(settings):
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def chosen(call: Call, inputs: Inputs) -> str:
    """What `auto` takes for these inputs."""
    with dispatch.using("auto") as ran:
        call(inputs)
    return "triton" if any("triton" in each for each in ran.values()) else "reference"


def _fused(case: Case, dtype: torch.dtype) -> dict[str, dispatch.Products]:
    """The fused kernel's names in a table, by how it multiplies."""
    if not case.triton:
        return {}
    both = case.products and dtype == torch.float32
    return {"triton": "tf32x3", "triton-ieee": "ieee"} if both else {"triton": "tf32x3"}


def _given(call: Call, size: Size, inputs: Inputs) -> Call:
    return call


def _using(choice: dispatch.Choice, call: Call, products: dispatch.Products = "tf32x3") -> Call:
    def run(inputs: Inputs) -> Tensor:
        with dispatch.using(choice, products):
            return call(inputs)

    return run


def _no_triton(device: torch.device) -> str | None:
    reason = dispatch.unusable(device)
    if reason is None and dispatch.interpreted():
        reason = "interpreted, which takes no time that means anything"
    return f"not measured: {reason}" if reason else None


def _no_compiler(device: torch.device) -> str | None:
    if device.type == "cpu" and not any(map(which, ("g++", "clang++", "c++"))):
        return "not measured: torch.compile needs a C++ compiler on a CPU"
    if device.type == "cuda" and find_spec("triton") is None:
        return "not measured: torch.compile needs Triton on a GPU"
    return None


def _missing(peer: Peer, device: torch.device) -> str | None:
    if find_spec(peer.module) is None:
        return f"not measured: {peer.name} is not installed"
    if device.type == "cpu" and peer.cuda_only:
        return f"not measured: {peer.cuda_only}"
    return None
