"""One line of time cut into stages, so that the stages' times add up to the whole.

On a GPU the cuts are events of its stream and nothing is waited for: a step is queued while the
one before it still runs, as in training.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn


class Timeline:
    """Every moment belongs to one stage: the innermost that was entered."""

    def __init__(self, device: torch.device) -> None:
        self._gpu = device.type == "cuda"
        self._cuts: list[tuple[str, float | torch.cuda.Event]] = []  # what begins, and when
        self.current = ""

    def start(self, stage: str) -> None:
        """From now on time belongs to `stage`."""
        moment: float | torch.cuda.Event = time.perf_counter() * 1e3
        if self._gpu:
            moment = torch.cuda.Event(enable_timing=True)
            moment.record()
        self._cuts.append((stage, moment))
        self.current = stage

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time within belongs to `name`, and afterwards again to what it belonged to before."""
        before = self.current
        self.start(name)
        try:
            yield
        finally:
            self.start(before)

    def read(self) -> dict[str, float]:
        """Each stage's ms up to the last cut, in the order of their first; waits for a GPU."""
        if self._gpu:
            torch.cuda.synchronize()
        spent: dict[str, float] = {}
        for (stage, begin), (_, end) in zip(self._cuts, self._cuts[1:], strict=False):
            spent[stage] = spent.get(stage, 0.0) + _between(begin, end)
        return spent


def _between(begin: float | torch.cuda.Event, end: float | torch.cuda.Event) -> float:
    if isinstance(begin, torch.cuda.Event):
        return float(begin.elapsed_time(end))  # type: ignore[arg-type]  # all cuts are of a kind
    assert isinstance(end, float)
    return end - begin


@contextmanager
def networks(
    modules: Iterable[nn.Module], enter: Callable[[], object], leave: Callable[[], object]
) -> Iterator[set[nn.Module]]:
    """Call `enter` and `leave` around every call of `modules` that is not within another one's.

    A compiled module is wrapped from outside: a hook would become part of what is compiled, so
    modules within it are left out.

    Yields:
        The modules so called, and compiled ones that were called within another, as they come.
    """
    depth, called = 0, set[nn.Module]()

    def before(module: nn.Module, *_: Any) -> None:
        nonlocal depth
        depth += 1
        if depth == 1 or compiled(module):
            called.add(module)
        if depth == 1:
            enter()

    def after(*_: Any) -> None:
        nonlocal depth
        depth -= 1
        if depth == 0:
            leave()

    removals: list[Callable[[], None]] = []
    inside: set[nn.Module] = set()  # of compiled modules
    for module in modules:
        if module in inside:
            continue
        call = compiled(module)
        if call is None:
            removals.append(module.register_forward_pre_hook(before).remove)
            removals.append(module.register_forward_hook(after, always_call=True).remove)
            continue
        inside |= set(module.modules())
        module._compiled_call_impl = _around(call, partial(before, module), after)
        removals.append(_restore(module, call))
    try:
        yield called
    finally:
        for remove in removals:
            remove()


def compiled(module: nn.Module) -> Callable[..., Any] | None:
    """What is called instead of a module that is compiled; None for another."""
    call: Callable[..., Any] | None = getattr(module, "_compiled_call_impl", None)
    return call


def _around(
    call: Callable[..., Any], before: Callable[[], None], after: Callable[[], None]
) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        before()
        try:
            return call(*args, **kwargs)
        finally:
            after()

    return timed


def _restore(module: nn.Module, call: Callable[..., Any]) -> Callable[[], None]:
    def restore() -> None:
        module._compiled_call_impl = call

    return restore
