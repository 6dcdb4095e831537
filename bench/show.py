"""Records as a person reads them in a terminal."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from statistics import mean

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from bench import record
from bench.errors import BenchError
from bench.record import Record, number


def summary(made: Record, path: Path, results: Path) -> RenderableType:
    """The result of one run: its numbers, its layers, and where it stands among its neighbours."""
    if made.status not in ("ok", "collapsed"):
        return Text.from_markup(f"[bold red]{made.status}[/]: {escape(made.message or '')}\n{path}")
    parts: list[RenderableType] = [_headline(made)]
    if len(made.per_layer) > 1:
        parts.append(_layers(made))
    neighbours = _neighbours(made, results)
    if neighbours is not None:
        parts.append(neighbours)
    parts.append(Text(f"record {path}", style="dim"))
    return Group(*parts)


def reproduction(before: Record, metrics: dict[str, float]) -> Text:
    """How this run compares with the record that was already there."""
    name, unit = before.metric.name, before.metric.unit
    was, now = before.metrics[name], metrics[name]
    return Text(
        f"recorded before on {before.created[:10]}: {name} {was:.2f} {unit}; this run gave "
        f"{now:.2f} {unit} ({now - was:+.2f}). The record stands.",
        style="dim",
    )


def full(made: Record, path: Path) -> RenderableType:
    """Everything in a record, section by section."""
    sections: list[RenderableType] = [_headline(made)]
    if made.per_layer:
        sections.append(_layers(made))
    for title, part in made:
        if not hasattr(part, "model_dump"):
            continue
        table = Table(title=title, title_justify="left", box=None, show_header=False)
        table.add_column(style="cyan", no_wrap=True)
        table.add_column()
        for key, value in part.model_dump(mode="json").items():
            table.add_row(escape(str(key)), escape(_plain(value)))
        sections += [Text(), table]
    if made.log:
        values = "  ".join(f"{key} {value:.4g}" for key, value in made.log.items())
        sections += [Text(), Text(f"last epoch of pretraining: {values}")]
    sections += [Text(), Text(f"record {path}", style="dim")]
    return Group(*sections)


def find(run: str, results: Path) -> tuple[Record, Path]:
    """The record whose run id begins with `run`, or which lies at the path `run`.

    Raises:
        BenchError: there is none, or more than one.
    """
    if Path(run).is_file():
        return record.read(Path(run)), Path(run)
    if not run or not all(character in "0123456789abcdef" for character in run):
        raise BenchError(f"'{run}' is neither a record's path nor a run id (hexadecimal digits)")
    found = record.files(results, run)
    if len(found) != 1:
        what = "no record" if not found else f"{len(found)} records"
        raise BenchError(f"{what} under {results} with a run id that begins with '{run}'")
    return record.read(found[0]), found[0]


def _headline(made: Record) -> Text:
    name, unit = made.metric.name, made.metric.unit
    value = made.metrics.get(name)
    text = Text.from_markup(
        f"[bold]{escape(made.method.name)}[/] on {escape(made.data.name)}, "
        f"{made.protocol.name}@{made.protocol.version}, seed {made.seed}: "
    )
    if value is None:
        return text.append(made.status, style="bold red")
    text.append(f"{name} {number(value)} {unit}", style="bold green")
    others = [f"{key} {number(other)}" for key, other in made.metrics.items() if key != name]
    text.append(f"  ({', '.join(others)})" if others else "")
    if made.status != "ok":
        text.append(f"  {made.status}: {made.message}", style="bold red")
    return text


def _layers(made: Record) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("layer", style="cyan")
    best = made.protocol.selection.get("layer")
    for name in next(iter(made.per_layer.values())):
        table.add_column(name, justify="right")
    for layer, values in made.per_layer.items():
        mark = " *" if layer == best else ""
        row = [number(value) for value in values.values()]
        table.add_row(f"{layer}{mark}", *row, style="bold" if mark else None)
    if best is not None:
        table.caption = "* chosen on validation"
        table.caption_justify = "left"
    return table


def _neighbours(made: Record, results: Path) -> Table | None:
    """The same protocol, data and backbone in other records, best first."""

    def group(one: Record) -> tuple[object, ...]:
        return (one.data.name, one.backbone, one.protocol.name, one.protocol.version)

    values: dict[tuple[str, int], list[float]] = defaultdict(list)
    for _, other in record.load_all(results)[0]:
        plain = not other.method.changed or other.run_id == made.run_id  # studies stand apart
        if group(other) == group(made) and other.status == "ok" and plain:
            row = (other.method.name, other.pretraining.epochs)
            values[row].append(other.metrics[other.metric.name])
    if len(values) < 2:
        return None
    table = Table(title="so far", title_justify="left", box=None, pad_edge=False)
    table.add_column("method", style="cyan")
    table.add_column("epochs", justify="right")
    table.add_column(f"{made.metric.name} {made.metric.unit}", justify="right")
    table.add_column("runs", justify="right")
    own = (made.method.name, made.pretraining.epochs)
    sign = -1 if made.metric.higher_is_better else 1
    for row, numbers in sorted(values.items(), key=lambda item: sign * mean(item[1])):
        style = "bold" if row == own else None
        table.add_row(row[0], str(row[1]), number(mean(numbers)), str(len(numbers)), style=style)
    return table


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return "\n".join(_plain(item) for item in value)
    return str(value)
