"""`bench profile data`: views a second of every operation and of a whole pipeline, by library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from bench import environment
from bench.errors import unknown
from bench.profiling.timing import Call, Times, alternate
from bench.profiling.view_cases import Case, cases
from bench.profiling.view_makers import BATCH, LIBRARIES, maker, one_by_one, pictures
from bench.record import profiles
from bench.record.profile import DataProfile, DataRow
from bench.record.schema import Json

Tell = Callable[[str], None]
PIXELS = 2048 * 32 * 32  # of all pictures together; and at least MINIMUM pictures
MINIMUM = 128


def run(
    size: int,
    ops: Sequence[str],
    device: torch.device,
    seconds: float,
    root: Path,
    tell: Tell,
    *,
    count: int | None = None,
    resume: bool = True,
) -> tuple[DataProfile, Path]:
    """Measure every operation, ours and the others' in turns; written after each.

    Args:
        size: px of the stored pictures and of the views.
        ops: names of cases; empty: all.
        device: where ours and kornia's work; those that go picture by picture stay on the CPU.
        seconds: of timing, for each operation, all libraries together.
        root: the results folder.
        tell: takes a line on each operation.
        count: of pictures; by default as many as are about as much work at any size.
        resume: whether to go on with an unfinished profile of the same.

    Raises:
        BenchError: there is no such operation.
    """
    known = {case.name: case for case in cases(size)}
    for name in ops:
        if name not in known:
            raise unknown("operation on pictures", name, known)
    count = count or max(MINIMUM, PIXELS // size**2)
    chosen = [known[name] for name in dict.fromkeys(ops)] or list(known.values())
    settings: Json = {
        "size": size,
        "ops": [case.name for case in chosen],
        "pictures": count,
        "batch": min(BATCH, count),
        "seconds": seconds,
        "device": device.type,
    }
    described = environment.describe(device)
    profile = profiles.begin(root, DataProfile, settings, described, resume=resume)
    done = {row.op for row in profile.rows}
    for case in chosen:
        if case.name in done:
            continue
        rows = measure(case, size, count, device, seconds)
        profile = profile.model_copy(update={"rows": (*profile.rows, *rows)})
        profiles.write(root, profile)
        rates = ", ".join(
            f"{row.provider} {row.views_per_second:,.0f}" for row in rows if row.views_per_second
        )
        tell(f"{case.name}: {rates} views/s")
    profile = profile.model_copy(update={"complete": True})
    return profile, profiles.write(root, profile)


def measure(
    case: Case, size: int, count: int, device: torch.device, seconds: float
) -> list[DataRow]:
    """One case, by every library that has it; those that could and do not say why."""
    pixels = pictures(count, size).to(device)
    makers = {library: maker(library, case, pixels) for library in LIBRARIES}
    calls: dict[str, Call] = {k: v for k, v in makers.items() if not isinstance(v, str)}
    times = alternate(calls, device, seconds=seconds)
    rows, batch = [], min(BATCH, count)
    for library, made in makers.items():
        if library == "lightly" and not case.lightly:
            continue  # its transforms are whole pipelines
        found = times.get(library, Times((), "wall", made if isinstance(made, str) else None))
        of_a_batch = tuple(sample * batch / count for sample in found.samples)
        time = Times(of_a_batch, found.clock).record()
        rows.append(
            DataRow(
                op=case.name,
                provider=library,
                size=size,
                batch_size=batch,
                one_by_one=one_by_one(library, case),
                time=time,
                views_per_second=case.copies * batch / (time.median / 1e3) if time else None,
                notes=case.notes_of(library),
                reason=found.failed,
            )
        )
    return rows
