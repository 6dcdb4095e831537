"""`bench profile losses` as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from bench.profiling import cases
from bench.record.profile import LossProfile, LossRow, Quantiles
from bench.record.units import binary, digits, milliseconds, percent, sizes

NUMBERS = ("forward ms", "backward", "both (p10-p90)", "speed", "of roof", "peak", "saved", "clock")
WIDE = 120  # characters: narrower, names and numbers would be cut


def table(profile: LossProfile, op: str) -> RenderableType:
    """Everything that was measured of `op`, a table for each dim, keys and type."""
    return Group(*_parts(profile, op))


def _parts(profile: LossProfile, op: str) -> Iterator[RenderableType]:
    rows = [row for row in profile.rows if row.op == op]
    for sort in dict.fromkeys((row.dim, row.keys, row.dtype) for row in rows):
        some = [row for row in rows if (row.dim, row.keys, row.dtype) == sort]
        yield _table(f"{op}: {sizes(*sort)}", some)
        yield Text("")
        for fit in profile.fits:
            if (fit.op, fit.dim, fit.keys, fit.dtype) == (op, *sort):
                most = "none" if fit.batch is None else f"N={fit.batch:,}"
                takes = f" takes {binary(fit.total)}" if fit.total else ""
                yield Text(f"largest batch, {fit.provider}: {most}{takes} ({fit.ended})")
    for provider, reason in dict.fromkeys((r.provider, r.reason) for r in rows if _absent(r)):
        yield Text(f"{provider}: {reason}")
    case = cases.ALL[op]
    yield Text("; ".join([*case.notes, f"floor: {case.floor}"]), style="dim")
    shown = [row for row in rows if not _absent(row)]
    for notes, provider in dict.fromkeys((row.notes, row.provider) for row in shown):
        if own := [note for note in notes if note not in case.notes]:
            yield Text(f"{provider}: {'; '.join(own)}", style="dim")
    yield Text("")


def _table(title: str, rows: list[LossRow]) -> Table:
    made = Table(title=title, box=None, pad_edge=False, title_justify="left", title_style="bold")
    made.add_column("N", justify="right", no_wrap=True)
    made.add_column("", style="cyan", no_wrap=True)
    for name in NUMBERS:
        made.add_column(name, justify="right", no_wrap=True)
    reference = {row.batch: row.both or row.forward for row in rows if row.provider == "reference"}
    for before, row in pairwise([None, *(row for row in rows if not _absent(row))]):
        assert row is not None
        if before is not None and before.batch != row.batch:
            made.add_section()
        made.add_row(*_cells(row, reference), style="bold" if row.chosen else None)
    return made


def _cells(row: LossRow, reference: Mapping[int, Quantiles | None]) -> list[str]:
    name = [f"{row.batch:,}", escape(row.provider)]
    if row.reason:
        return [*name, "", "", escape(row.reason.partition(":")[0])]
    whole, against = row.both or row.forward, reference.get(row.batch)
    memory = row.memory
    return [
        *name,
        milliseconds(row.forward, spread=row.both is None),
        milliseconds(row.backward, spread=False),
        milliseconds(row.both),
        digits(against.median / whole.median) if against and whole else "",
        percent(row.share),
        "" if memory.peak is None else binary(memory.peak),
        "" if memory.saved is None else binary(memory.saved),
        whole.clock if whole else "",
    ]


def _absent(row: LossRow) -> bool:
    """Whether it cannot be measured here at any size."""
    return row.reason is not None and row.reason.startswith("not measured")
