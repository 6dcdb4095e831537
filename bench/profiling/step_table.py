"""A profile of steps as a table in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from bench.profiling.stepper import STAGES
from bench.record.profile import StepProfile, StepRow
from bench.record.units import binary, digits, milliseconds, percent


def line(row: StepRow) -> str:
    """One step in one line, as it is told when it is done."""
    if row.step is None or row.images_per_second is None:
        return escape(f"{_name(row)}: not measured: {row.reason}")
    return escape(
        f"{_name(row)}: {row.images_per_second:,.0f} images/s, {milliseconds(row.step)} ms"
    )


def table(profile: StepProfile) -> RenderableType:
    """Two tables, of time and of memory, and below them why and where rows differ."""
    rows = profile.rows
    parts: list[RenderableType] = [_times(profile), Text()]
    if measured := [row for row in rows if row.step is not None]:
        parts += [_memory(measured), Text()]
    parts += [Text(f"{_name(row)}: {row.reason}", style="dim") for row in rows if row.reason]
    notes = [(row, note) for row in rows for note in row.notes]
    parts += [Text(f"{_name(row)}: {note}", style="dim") for row, note in notes]
    if rows:
        parts.append(Text(_told(profile), style="dim"))
    return Group(*parts)


def _times(profile: StepProfile) -> Table:
    environment = profile.environment
    cpu = f"{environment.cpu}, {environment.threads} threads"
    where = cpu if environment.device == "cpu" else environment.device
    made = _empty(f"Training steps on {where}: time in ms")
    for name in ("batch", "images/s", "step (p10-p90)", *STAGES, "of peak"):
        made.add_column(name, justify="right", no_wrap=True)
    for row in profile.rows:
        if row.step is None:
            made.add_row(escape(_name(row)), str(row.batch_size or ""), "not measured", style="dim")
            continue
        made.add_row(
            escape(_name(row)),
            str(row.batch_size),
            f"{row.images_per_second:,.0f}",
            milliseconds(row.step),
            *(milliseconds(row.stages.get(stage), spread=False) for stage in STAGES),
            percent(row.share),
        )
    return made


def _memory(rows: Sequence[StepRow]) -> Table:
    made = _empty("Memory and work of a step")
    made.add_column("backbone")
    gpu = any(row.memory.reserved is not None for row in rows)
    whole = "reserved" if gpu else "process"
    for name in ("trained", "peak", whole, "saved for backward", "GFLOP"):
        made.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        found = row.memory
        made.add_row(
            escape(_name(row)),
            escape(row.backbone),
            "" if row.parameters is None else f"{row.parameters / 1e6:.2f} M",
            *map(_size, (found.peak, found.reserved if gpu else found.resident, found.saved)),
            "" if row.flops is None else digits(row.flops / 1e9),
        )
    return made


def _empty(title: str) -> Table:
    made = Table(title=escape(title), title_justify="left", box=None)
    made.add_column("method", style="cyan")
    return made


def _size(count: int | None) -> str:
    return "" if count is None else binary(count)


def _name(row: StepRow) -> str:
    phases = f" ({', '.join(row.phases)})" if row.phases else ""
    by = f" by {row.provider}" if row.provider != "bench" else ""
    return f"{row.method}{phases}{by}"


def _told(profile: StepProfile) -> str:
    rows, roof = profile.rows, profile.roof
    first = rows[0]
    compiled = ", compiled backbone" if any(row.compiled for row in rows) else ""
    peaks = "" if roof is None else ", ".join(f"{k} {v / 1e9:,.0f}" for k, v in roof.flops.items())
    return (
        f"{first.data}, {first.size} px, precision {first.precision}"
        f"{compiled}; stages are medians; "
        f"measured peaks, GFLOP/s: {peaks}"
    )
