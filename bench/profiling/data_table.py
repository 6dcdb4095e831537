"""A profile of views as a table in a terminal: a row an operation, a column a library."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from bench.profiling.view_makers import LIBRARIES
from bench.record.profile import DataProfile, DataRow


def table(profile: DataProfile) -> RenderableType:
    """Views a second, ours against the fastest other, and what differs between the libraries."""
    by_op: dict[str, dict[str, DataRow]] = {}
    for row in profile.rows:
        by_op.setdefault(row.op, {})[row.provider] = row
    environment, settings = profile.environment, profile.settings
    cpu = f"{environment.cpu}, {environment.threads} threads"
    where = cpu if environment.device == "cpu" else f"{environment.device}; {cpu}"
    title = f"Views a second of {settings['size']} px on {where}"
    made = Table(title=escape(title), title_justify="left", box=None)
    made.add_column("", style="cyan", no_wrap=True)
    for library in (*LIBRARIES, "ours / best other"):
        made.add_column(library, justify="right")
    for op, rows in by_op.items():
        made.add_row(escape(op), *(_cell(rows.get(library)) for library in LIBRARIES), _ratio(rows))
    parts: list[RenderableType] = [made, Text()]
    if any(row.one_by_one for row in profile.rows):
        told = f"* picture by picture, in {environment.threads} loader processes"
        parts.append(Text(told, style="dim"))
    for row in profile.rows:
        lines = (*row.notes, *([row.reason] if row.reason else []))
        parts += [Text(f"{row.op}, {row.provider}: {line}", style="dim") for line in lines]
    return Group(*parts)


def _cell(row: DataRow | None) -> str:
    if row is None:
        return ""
    if row.views_per_second is None:
        return "-"
    return f"{row.views_per_second:,.0f}{'*' if row.one_by_one else ''}"


def _ratio(rows: dict[str, DataRow]) -> str:
    rates = {name: row.views_per_second for name, row in rows.items() if row.views_per_second}
    ours = rates.pop(LIBRARIES[0], None)
    return f"{ours / max(rates.values()):.1f} x" if ours and rates else ""
