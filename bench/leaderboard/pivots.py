"""Tables across groups: one thing varies from column to column, and everything else is the same.

Label fractions, pretraining budgets, backbones ("is the ranking the same on other architectures?")
and data that features are transferred to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations

import pandas as pd
from scipy.stats import spearmanr

from bench.leaderboard.groups import Entry, differences, length, role_of
from bench.leaderboard.statistics import interval
from bench.leaderboard.tables import header, markdown
from bench.record import MetricRecord, Record, canonical

Value = str | int | float
COMMON = 3  # methods that two backbones must share for their rankings to be compared
LABELS = {"label_fraction": "protocol", "classifier": "method"}  # where `labels` is set


@dataclass(frozen=True)
class Pivot:
    """A table of methods by one varying thing, as markdown."""

    data: str  # the data set under whose heading it stands; "" for one of several
    title: str
    body: str


@dataclass(frozen=True)
class _Run:
    """One number, split into what varies along the columns, the row, and what is held fixed."""

    column: Value
    row: str
    fixed: tuple[str, ...]
    record: Record
    varying: Mapping[str, object] = field(default_factory=dict)  # what a row may differ in

    @property
    def value(self) -> float:
        return self.record.metrics[self.record.metric.name]


def pivots(entries: Iterable[Entry]) -> list[Pivot]:
    """Every table across groups that the records hold, from good runs of unchanged settings."""
    records = [
        entry.record
        for entry in sorted(entries, key=lambda entry: entry.path.as_posix())
        if entry.record.status == "ok"
    ]
    return [*_labels(records), *_budgets(records), *_backbones(records), *_transfers(records)]


def _labels(records: list[Record]) -> Iterator[Pivot]:
    """Accuracy by the labels that may be used, whoever learns from them."""

    def run(record: Record) -> _Run | None:
        where = LABELS.get(record.protocol.name)
        config = record.protocol.config if where == "protocol" else record.method.config
        if where is None or not isinstance(labels := config.get("labels"), int | float):
            return None
        how = {k: v for k, v in record.protocol.config.items() if k != "labels"}
        how["epochs"] = record.pretraining.epochs
        if where == "method":
            row = f"{record.method.name}, own classifier"
            unchanged = not set(record.method.changed) - {"labels"}
        else:
            # What labels a method had in pretraining would have to be the same few.
            ceiling = role_of(record) == "ceiling"
            row = f"{record.method.name} ({how['mode']})" + (", saw all labels" if ceiling else "")
            unchanged = not record.method.changed and (ceiling or not record.method.labels_used)
        fixed = (record.data.name, record.backbone, record.data.digest)
        return _Run(labels, row, fixed, record, how) if unchanged else None

    def heading(labels: Value) -> str:
        return f"{labels:.3g} of labels" if isinstance(labels, float) else f"{labels} per class"

    for (data, backbone, _), found in _groups(records, run, every=True):
        yield Pivot(data, f"Few labels · {backbone}", _table(found, heading))


def _budgets(records: list[Record]) -> Iterator[Pivot]:
    """Accuracy by epochs of pretraining."""

    def run(record: Record) -> _Run | None:
        own = record.pretraining
        if role_of(record) or record.method.changed or not own.epochs:
            return None
        fixed = (*_setting(record), record.backbone, record.data.name, own.data, own.data_digest)
        return _Run(own.epochs, record.method.name, fixed, record)

    for fixed, found in _groups(records, run):
        own = found[0].record.pretraining
        seen = length(0, own.pictures, own.data).removeprefix("0 epochs on ")
        title = f"Budget: {_protocol(found[0].record)} · {fixed[-4]} · {seen}"
        yield Pivot(fixed[-3], title, _table(found, lambda epochs: f"{epochs} epochs"))


def _backbones(records: list[Record]) -> Iterator[Pivot]:
    """The same methods on several backbones, and whether their rankings agree."""

    def run(record: Record) -> _Run | None:
        own = record.pretraining
        if record.method.changed or record.method.name in ("pixels", "pca"):
            return None
        budget = "" if role_of(record) else f"{own.data_digest} {own.epochs}"
        fixed = (*_setting(record), record.data.name, budget)
        return _Run(record.backbone, record.method.name, fixed, record)

    for fixed, found in _groups(records, run):
        record = found[0].record
        if not fixed[-1] or len({one.row for one in found}) < COMMON:
            continue
        means = _frame(found).groupby(["row", "column"])["value"].mean().unstack()
        lines = []
        for one, other in combinations(means.columns, 2):
            both = means[[one, other]].dropna()
            if len(both) >= COMMON:
                rho = float(spearmanr(both[one], both[other]).statistic)
                lines.append(f"- {one} and {other}: Spearman {rho:+.2f} over {len(both)} methods")
        if not lines:
            continue
        own = record.pretraining
        seen = length(own.epochs, own.pictures, own.data)
        body = _table(found, str) + "\n\nRankings of the methods:\n\n" + "\n".join(lines)
        yield Pivot(fixed[-2], f"Architectures: {_protocol(record)} · {seen}", body)


def _transfers(records: list[Record]) -> Iterator[Pivot]:
    """Features of one pretraining, measured on several data sets."""

    def run(record: Record) -> _Run | None:
        own = record.pretraining
        if record.method.changed:
            return None
        trained = f"{own.data_digest} {own.epochs}" if own.epochs else ""
        fixed = (*_setting(record)[:3], record.backbone, trained)
        return _Run(record.data.name, record.method.name, fixed, record)

    for fixed, found in _groups(records, run):
        own = found[0].record.pretraining
        if fixed[-1]:
            seen = length(own.epochs, own.pictures, own.data)
            title = f"Transfer: {_protocol(found[0].record)} · {fixed[-2]} · {seen}"
            yield Pivot("", title, _table(found, str))


def _groups(
    records: Iterable[Record], run: Callable[[Record], _Run | None], every: bool = False
) -> Iterator[tuple[tuple[str, ...], list[_Run]]]:
    """Runs that share what is fixed, where some row has numbers in several columns.

    Rows that have not are left out, unless `every` row is wanted.
    """
    groups: dict[tuple[str, ...], list[_Run]] = {}
    for record in records:
        if (made := run(record)) is not None:
            groups.setdefault(made.fixed, []).append(made)
    for fixed, members in sorted(groups.items()):
        found = _told_apart(members)
        columns: dict[str, set[Value]] = {}
        for one in found:
            columns.setdefault(one.row, set()).add(one.column)
        if any(len(values) > 1 for values in columns.values()):
            yield fixed, [one for one in found if every or len(columns[one.row]) > 1]


def _told_apart(runs: list[_Run]) -> list[_Run]:
    """The same with rows parted, and named, by whatever else their runs differ in."""
    apart = []
    for one in runs:
        variants = {canonical(_variant(other)): other for other in runs if other.row == one.row}
        details = differences([_variant(other) for other in variants.values()])
        detail = details[list(variants).index(canonical(_variant(one)))]
        apart.append(replace(one, row=f"{one.row} ({detail})" if detail else one.row))
    return apart


def _variant(run: _Run) -> dict[str, object]:
    method = run.record.method
    protocol = run.record.protocol.version
    told = {"version": method.version, "recipe": method.recipe, "protocol": protocol}
    return {**told, **run.varying}


def _setting(record: Record) -> tuple[str, ...]:
    protocol = record.protocol
    config = canonical(protocol.config)
    return protocol.name, str(protocol.version), config, record.data.digest


def _protocol(record: Record) -> str:
    return f"{record.protocol.name}@{record.protocol.version}: {header(record.metric)}"


def _frame(found: Iterable[_Run]) -> pd.DataFrame:
    """Row, column and value, one line a seed (the first record of it counts)."""
    seen: dict[tuple[str, Value, int], float] = {}
    for one in found:
        seen.setdefault((one.row, one.column, one.record.seed), one.value)
    return pd.DataFrame(
        {
            "row": [row for row, _, _ in seen],
            # As objects: 4 labels a class and a share of 0.1 are not numbers of one kind.
            "column": pd.Series([column for _, column, _ in seen], dtype=object),
            "value": list(seen.values()),
        }
    )


def _table(found: list[_Run], heading: Callable[[Value], str]) -> str:
    """Methods down, best mean over the columns first; the varying thing across."""
    frame, metric = _frame(found), found[0].record.metric
    columns = sorted(frame["column"].unique(), key=lambda c: (isinstance(c, int), c))
    order = _ordered(frame, metric)
    rows = []
    for name in order:
        own = frame[frame["row"] == name]
        cells = {heading(c): interval(own[own["column"] == c]["value"]) for c in columns}
        rows.append({"method": f"`{name}`", **cells})
    return markdown(rows, right={heading(c) for c in columns})


def _ordered(frame: pd.DataFrame, metric: MetricRecord) -> list[str]:
    # By the last column: a mean over columns would favour the rows that lack the hard ones.
    last = max(frame["column"].unique(), key=lambda c: (isinstance(c, int), c))
    means = frame[frame["column"] == last].groupby("row")["value"].mean()
    ordered = list(means.sort_values(ascending=not metric.higher_is_better).index)
    return ordered + sorted(set(frame["row"]) - set(ordered))
