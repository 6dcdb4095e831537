"""The tables of one group: results, accuracy by layer, published numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from bench.leaderboard.groups import Row
from bench.leaderboard.published import closest
from bench.leaderboard.ranking import Place
from bench.record import CostRecord, MetricRecord, Record, number

UNPAIRED = "†"
_FIRST = ("top1_default", "top5", "ece")  # secondary metrics that come before others


def results_table(places: Sequence[Place], link: str) -> str:
    """The group's main table.

    Args:
        places: the rows, best first.
        link: the results folder, seen from the page.
    """
    metric = places[0].row.entries[0].record.metric
    secondary = {name for p in places for e in p.row.ok for name in e.record.metrics}
    secondary.discard(metric.name)
    rows = []
    for place in places:
        row = place.row
        rows.append(
            {
                "rank": _rank(place),
                "method": name(place),
                header(metric): score(place),
                "best layer": best_layer(row),
                **{name: _mean(_metric(row, name)) for name in sorted(secondary, key=_priority)},
                "pretraining": duration(cost_of(row, lambda cost: cost.pretrain_seconds)),
                "images/s": _count(cost_of(row, lambda cost: cost.pretrain_images_per_second)),
                "evaluation": duration(cost_of(row, lambda cost: cost.eval_seconds)),
                "device": ", ".join(dict.fromkeys(_device(e.record) for e in row.ok)),
                "figure": " ".join(
                    _link("png", link, e.path.with_name(e.record.figure))
                    for e in row.ok[:1]
                    if e.record.figure
                ),
                "seeds": " ".join(_link(str(e.record.seed), link, e.path) for e in row.entries),
            }
        )
    numeric = {header(metric), "pretraining", "images/s", "evaluation", *secondary}
    return markdown(rows, right=numeric)


def _link(text: str, link: str, path: Path) -> str:
    return f"[{text}]({quote(f'{link}/{path.as_posix()}')})"


def layers_table(places: Sequence[Place]) -> str:
    """The primary metric by layer, means over seeds, the best in bold; "" without layers."""
    rows: list[dict[str, str]] = []
    for place in places:
        name = place.row.entries[0].record.metric.name
        found = pd.DataFrame(
            [
                {layer: of[name] for layer, of in entry.record.per_layer.items() if name in of}
                for entry in place.row.ok
            ]
        ).mean()
        if len(found) > 1:
            best = _best_layers(place.row)
            cells = {
                str(layer): f"**{number(value)}**" if layer in best else number(value)
                for layer, value in found.items()
            }
            rows.append({"method": f"`{place.row.label}`", **cells})
    return markdown(rows, right={key for row in rows for key in row} - {"method"}) if rows else ""


def published_table(places: Iterable[Place], published: pd.DataFrame) -> str:
    """The closest published number beside each measured one; "" where there is none."""
    rows = []
    for place in places:
        if place.mean is None:
            continue
        found = closest(place.row.ok[0].record, published)
        if found is None:
            continue
        rows.append(
            {
                "method": f"`{place.row.label}`",
                "paper": f"{found.value:.2f}" + (" (sources conflict)" if found.conflict else ""),
                "measured": f"{place.mean:.2f}",
                "difference": f"{place.mean - found.value:+.2f}",
                "comparable?": "no: " + ", ".join(found.reasons) if found.reasons else "**yes**",
                "published as": found.name,
                "source": found.source,
            }
        )
    return markdown(rows, right={"paper", "measured", "difference"}) if rows else ""


def markdown(rows: Sequence[Mapping[str, str]], right: set[str]) -> str:
    """Rows of cells as a pipe table, without the columns that are empty throughout."""
    frame = pd.DataFrame(list(rows)).fillna("")
    frame = frame.loc[:, (frame != "").any()]
    frame = frame.map(lambda cell: " ".join(str(cell).replace("|", "\\|").split()))
    align = ["right" if column in right else "left" for column in frame.columns]
    return str(
        frame.to_markdown(index=False, tablefmt="pipe", disable_numparse=True, colalign=align)
    )


def duration(seconds: float | None) -> str:
    """Seconds in the unit that reads best."""
    if seconds is None:
        return ""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def status(row: Row) -> str:
    """What became of the seeds that did not end well; "" when all did."""
    found: dict[str, list[int]] = {}
    for entry in row.entries:
        if entry.record.status != "ok":
            found.setdefault(entry.record.status, []).append(entry.record.seed)
    return ", ".join(
        f"{name} (seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))})"
        for name, seeds in found.items()
    )


def _rank(place: Place) -> str:
    if place.row.role:
        return f"*{place.row.role}*"
    if place.rank is None:
        return "-"
    return f"{place.rank}" if place.paired else f"{place.rank} {UNPAIRED}"


def name(place: Place) -> str:
    """The row's label, marked where it uses labels or did not end well."""
    row = place.row
    name = f"**`{row.label}`**" if place.rank == 1 else f"`{row.label}`"
    if row.role != "ceiling" and row.entries[0].record.method.labels_used:
        name += " uses labels"
    if row.entries[0].record.method.text_used:
        name += " uses captions"
    return f"{name} **{status(row)}**" if status(row) else name


def score(place: Place) -> str:
    """The mean over seeds and its interval, as "64.34 ± 5.79 (n=3)"."""
    if place.mean is None:
        return "-"
    n = len(place.row.ok)
    if place.half_width is None:
        return f"{number(place.mean)} (n={n})"
    return f"{number(place.mean)} ± {number(place.half_width, place.mean)} (n={n})"


def header(metric: MetricRecord) -> str:
    """The metric with its unit and which way is better, as "top1 % ↑"."""
    unit = f" {metric.unit}" if metric.unit else ""
    return f"{metric.name}{unit} {'↑' if metric.higher_is_better else '↓'}"


def _best_layers(row: Row) -> Counter[str]:
    """The layer that each good seed chose on validation; without a choice, its best on test."""
    found = []
    for entry in row.ok:
        record = entry.record
        chosen = record.protocol.selection.get("layer")
        by_layer = {
            layer: values[record.metric.name]
            for layer, values in record.per_layer.items()
            if record.metric.name in values
        }
        if isinstance(chosen, str):
            found.append(chosen)
        elif by_layer:
            best = max if record.metric.higher_is_better else min
            found.append(best(by_layer, key=lambda layer: by_layer[layer]))
    return Counter(found)


def best_layer(row: Row) -> str:
    """The layer that the seeds chose, or how often each was chosen."""
    found = _best_layers(row).most_common()
    if len(found) == 1:
        return found[0][0]
    return ", ".join(f"{layer} (x{count})" for layer, count in found)


def _metric(row: Row, name: str) -> pd.Series[float]:
    values = [e.record.metrics[name] for e in row.ok if name in e.record.metrics]
    return pd.Series(values, dtype="float64")


def _mean(values: pd.Series[float]) -> str:
    return "" if values.empty else number(float(values.mean()))


def cost_of(row: Row, of: Callable[[CostRecord], float | None]) -> float | None:
    """The mean of one cost over the good seeds; None where none was measured."""
    values = pd.Series([of(entry.record.cost) for entry in row.ok], dtype="float64").dropna()
    return None if values.empty or not values.any() else float(values.mean())


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _device(record: Record) -> str:
    machine = record.environment
    return (
        machine.device
        if machine.device_count == 1
        else f"{machine.device_count} x {machine.device}"
    )


def _priority(name: str) -> tuple[int, str]:
    return (_FIRST.index(name) if name in _FIRST else len(_FIRST)), name
