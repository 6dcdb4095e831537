"""One op at one size by all who compute it: its memory, then times in turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from bench import rng
from bench.profiling import budget, memory
from bench.profiling.budget import Ladder, Weighed
from bench.profiling.case import Call, Case, Draw, Inputs, Size
from bench.profiling.losses_asked import Asked
from bench.profiling.providers import Provider, chosen
from bench.profiling.timing import Times, alternate
from bench.record.profile import LossRow, MemoryRecord, Quantiles


@dataclass(frozen=True)
class Group:
    """One op with all but the batch given."""

    case: Case
    batches: tuple[int, ...]
    dim: int | None
    keys: int | None
    dtype: torch.dtype
    asked: Asked
    ladders: dict[str, Ladder] = field(default_factory=dict)

    def size(self, batch: int) -> Size:
        """The sizes of `batch`."""
        return Size(batch, self.dim, self.keys, self.dtype)


def measure(
    group: Group, every: Sequence[Provider], size: Size, device: torch.device
) -> list[LossRow]:
    """A row for every provider at `size`: memory first, then, of those that fit, times in turns."""
    weighed: dict[str, Weighed] = {}
    reasons = {each.name: each.reason for each in every if each.reason}
    for each in every:
        if each.reason is None:
            found = group.ladders[each.name].at(size.batch)
            if isinstance(found, str):
                reasons[each.name] = found
            else:
                weighed[each.name] = found
    forward, both, picked = dict[str, Times](), dict[str, Times](), None
    if weighed:
        inputs = _inputs(group.case, size, device)
        picked = _picked(group.case, inputs, device)
        calls: dict[str, Callable[[], object]] = {}
        for each in every:
            if each.name in weighed:
                call = each.build(size, inputs)
                calls[f"forward {each.name}"] = _forward(call, inputs)
                if group.case.backward:
                    calls[f"both {each.name}"] = _both(call, inputs)
        errors: dict[str, str] = {}
        guarded = {key: _guarded(key, call, errors) for key, call in calls.items()}
        times = alternate(guarded, device, seconds=group.asked.seconds)
        for key, taken in times.items():
            part, _, name = key.partition(" ")
            (forward if part == "forward" else both)[name] = taken
            if taken.failed:
                reasons[name] = errors.get(key, taken.failed)
    work = group.case.work(size)
    between = {name: _between(forward[name], whole) for name, whole in both.items()}
    return [
        LossRow(
            op=group.case.op,
            provider=each.name,
            batch=size.batch,
            dim=size.dim,
            keys=size.keys,
            dtype=size.name,
            forward=_kept(forward, each.name),
            backward=_kept(between, each.name),
            both=_kept(both, each.name),
            memory=_memory(weighed.get(each.name)),
            flops=work.flops,
            bytes=work.bytes,
            chosen=each.name not in reasons and picked == each.name,
            notes=(*group.case.notes, *each.notes),
            reason=reasons.get(each.name),
        )
        for each in every
    ]


def ladder(group: Group, provider: Provider, device: torch.device) -> Ladder:
    """The sizes of `provider`, none of them weighed yet."""

    def weigh(batch: int) -> Weighed:
        return _weigh(group, provider, batch, device)

    def as_reference(batch: int) -> int | None:
        found = group.ladders["reference"].at(batch)
        return None if isinstance(found, str) else found.total

    def inputs(batch: int) -> int:
        size = group.size(batch)
        return _bytes(group.case.inputs(size, Draw(torch.device("meta"), size.dtype, None)))

    cautious = device.type != "cuda"
    like = as_reference if provider.compiles else None
    return Ladder(weigh, group.asked.memory, cautious, like, inputs)


def _weigh(group: Group, provider: Provider, batch: int, device: torch.device) -> Weighed:
    """The memory of a whole step of the op; whatever else goes wrong is told as a reason."""
    size = group.size(batch)
    try:
        inputs = _inputs(group.case, size, device)
        call = provider.build(size, inputs)
        run = _both(call, inputs) if group.case.backward else _forward(call, inputs)
        run()  # what libraries set up on first use is not the op's
        peak, seconds = budget.timed(lambda: memory.peak(run, device))
        kept = None
        if group.case.backward and not peak.failed:
            kept = memory.saved(lambda: call(inputs), inputs.values())
    except Exception as error:  # of any library, and no reason to lose the other rows
        reason = memory.out_of_memory(error) or _failed(error)
        memory.release()
        return Weighed(memory.Peak(None, failed=reason), None, None, 0.0)
    total = None if peak.allocated is None else peak.allocated + _bytes(inputs)
    return Weighed(peak, kept, total, seconds)


def _picked(case: Case, inputs: Inputs, device: torch.device) -> str | None:
    """What `auto` takes; None where that does not fit, or fails."""
    if device.type != "cuda":
        return "reference"
    try:
        return chosen(case.call, inputs)
    except Exception:  # its own row says why
        return None


def _inputs(case: Case, size: Size, device: torch.device) -> Inputs:
    draw = rng.generator("profile", case.op, device=device)
    return case.inputs(size, Draw(device, size.dtype, draw))


def _forward(call: Call, inputs: Inputs) -> Callable[[], object]:
    return lambda: call(inputs)


def _both(call: Call, inputs: Inputs) -> Callable[[], object]:
    leaves = [tensor for tensor in inputs.values() if tensor.requires_grad]
    return lambda: torch.autograd.grad(call(inputs), leaves)


def _guarded(key: str, call: Callable[[], object], errors: dict[str, str]) -> Callable[[], object]:
    """`call`, left out of the turns by any error, as by one of memory; `errors` says which."""

    def run() -> object:
        try:
            return call()
        except Exception as error:
            if memory.out_of_memory(error):
                raise
            errors[key] = _failed(error)
            raise MemoryError from error

    return run


def _between(forward: Times, both: Times) -> Times:
    """The backward: what both take beyond the forward of the same round."""
    pairs = zip(forward.samples, both.samples, strict=False)
    return Times(tuple(whole - part for part, whole in pairs), both.clock)


def _kept(times: Mapping[str, Times], name: str) -> Quantiles | None:
    return times[name].record() if name in times else None


def _memory(found: Weighed | None) -> MemoryRecord:
    if found is None:
        return MemoryRecord()
    peak = found.peak
    return MemoryRecord(peak=peak.allocated, reserved=peak.reserved, saved=found.saved)


def _bytes(inputs: Inputs) -> int:
    return sum(x.untyped_storage().nbytes() for x in inputs.values())


def _failed(error: Exception) -> str:
    """What kind of error, and the first line of it."""
    first = next(iter(str(error).strip().splitlines()), "")[:200]
    if isinstance(error, ImportError):
        return f"not measured: {first}"
    return f"failed: {type(error).__name__}: {first}"
