"""`bench profile losses`: every op by everyone who computes it, in turns, at ever larger sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path

import torch

from bench import environment
from bench.files import write_atomic
from bench.profiling import cases, plot, roof
from bench.profiling.case import Case, Grid
from bench.profiling.losses_asked import Asked
from bench.profiling.losses_rows import Group, ladder, measure
from bench.profiling.providers import OURS, Provider, compiling, providers
from bench.record import profiles
from bench.record.profile import FitRow, LossProfile, LossRow, RoofRecord
from bench.record.units import sizes

Tell = Callable[[str], None]


def run(
    asked: Asked, device: torch.device, root: Path, tell: Tell, *, resume: bool = True
) -> Iterator[tuple[LossProfile, str]]:
    """Measure what is asked for, op by op, and write the profile after every size.

    Args:
        asked: what.
        device: where.
        root: the results folder.
        tell: takes a line on what is going on.
        resume: whether to go on with an unfinished profile of the same.

    Yields:
        The profile so far, and the op that has just been measured and drawn.
    """
    settings, here = asked.settings(), environment.describe(device)
    profile = profiles.begin(root, LossProfile, settings, here, resume=resume)
    for case in cases.named(asked.ops):
        tell(f"{case.op}: measuring what the device can do at most")
        profile = raised(profile, roof.measure(device))
        for group in groups(case, asked, device):
            with compiling():
                profile = _group(profile, group, device, root, tell)
        profile = _draw(profile, case.op, root)
        yield profile, case.op
    for case in cases.named(asked.ops):
        profile = _draw(profile, case.op, root)  # with the roof of the whole run
    profiles.write(root, profile.model_copy(update={"complete": True}))


def groups(case: Case, asked: Asked, device: torch.device) -> Iterator[Group]:
    """Of `case`: what is asked for, or else its own sizes on such a device."""
    own: Grid = getattr(case, device.type)
    dims = asked.dims if asked.dims and own.dims != (None,) else own.dims
    keys = asked.keys if asked.keys and own.keys != (None,) else own.keys
    for name, dim, key in product(asked.dtypes, dims, keys):
        yield Group(case, asked.batches or own.batches, dim, key, getattr(torch, name), asked)


def _group(
    profile: LossProfile, group: Group, device: torch.device, root: Path, tell: Tell
) -> LossProfile:
    assert profile.roof is not None
    done = {(row.op, row.batch, row.dim, row.keys, row.dtype) for row in profile.rows}
    fitted = {(row.op, row.dim, row.keys, row.dtype) for row in profile.fits}
    every = list(providers(group.case, device, group.dtype, peers=group.asked.peers))
    for provider in every:
        group.ladders[provider.name] = ladder(group, provider, device)
    for batch in group.batches:
        size = group.size(batch)
        if (group.case.op, batch, size.dim, size.keys, size.name) in done:
            continue
        tell(f"{group.case.op} {sizes(size.dim, size.keys, size.name, batch)}")
        rows = [against(row, profile.roof) for row in measure(group, every, size, device)]
        profile = profile.model_copy(update={"rows": (*profile.rows, *rows)})
        profiles.write(root, profile)
    size = group.size(0)
    if group.asked.fit and (group.case.op, size.dim, size.keys, size.name) not in fitted:
        tell(f"{group.case.op} {sizes(size.dim, size.keys, size.name)}: the largest batch")
        fits = tuple(_fits(group, every))
        profile = profile.model_copy(update={"fits": (*profile.fits, *fits)})
        profiles.write(root, profile)
    return profile


def _fits(group: Group, every: Sequence[Provider]) -> Iterator[FitRow]:
    for each in every:
        if each.reason:
            continue
        rungs = group.ladders[each.name]
        for batch in group.batches if each.compiles else ():
            rungs.at(batch)  # known already, unless an earlier command measured it
        ended, largest = rungs.climb(), rungs.largest()
        yield FitRow(
            op=group.case.op,
            provider=each.name,
            dim=group.dim,
            keys=group.keys,
            dtype=group.size(0).name,
            memory=group.asked.memory,
            batch=largest,
            total=None if largest is None else rungs.known[largest].total,
            ended=ended,
        )


def broken(profile: LossProfile) -> list[str]:
    """Our own ops that failed at some size for another reason than memory."""
    failed = (row for row in profile.rows if row.reason and row.reason.startswith("failed"))
    ours = (f"{row.op} ({row.provider})" for row in failed if row.provider in OURS)
    return list(dict.fromkeys(ours))


def raised(profile: LossProfile, measured: RoofRecord) -> LossProfile:
    """`profile` with the higher of its roof and another, and its rows held against that.

    What else a machine does can only hide how high its roof is.
    """
    if profile.roof is not None:
        flops = {key: max(old, measured.flops[key]) for key, old in profile.roof.flops.items()}
        most = max(profile.roof.bytes_per_second, measured.bytes_per_second)
        measured = RoofRecord(flops=flops, bytes_per_second=most)
    rows = tuple(against(row, measured) for row in profile.rows)
    return profile.model_copy(update={"roof": measured, "rows": rows})


def against(row: LossRow, at_most: RoofRecord) -> LossRow:
    """`row` with its floor at a roof, if that was measured, and the share that it reaches of it."""
    assert row.flops is not None and row.bytes is not None
    peak = roof.flops_of(at_most, row.dtype)
    if row.flops and peak is None:
        return row
    by_flops = 1e3 * row.flops / peak if peak else 0.0
    by_bytes = 1e3 * row.bytes / at_most.bytes_per_second
    floor, whole = max(by_flops, by_bytes), row.both or row.forward
    return row.model_copy(
        update={
            "floor_ms": floor,
            "bound": "flops" if by_flops >= by_bytes else "bytes",
            "share": floor / whole.median if whole and not row.reason else None,
        }
    )


def _draw(profile: LossProfile, op: str, root: Path) -> LossProfile:
    picture, name = plot.draw(profile, op), f"{profile.id}-{op}.png"
    path = profiles.path_of(root, profile).with_name(name)
    write_atomic(path, lambda file: file.write(picture))
    figures = dict.fromkeys((*profile.figures, name))
    profile = profile.model_copy(update={"figures": tuple(figures)})
    profiles.write(root, profile)
    return profile
