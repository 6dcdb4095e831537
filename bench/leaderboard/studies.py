"""Settings studied: runs of one method that differ in its settings, side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from bench.leaderboard.groups import FIRST, Entry, differences, flatten, length, setting_of
from bench.leaderboard.statistics import interval
from bench.leaderboard.tables import header, markdown
from bench.record import Record, canonical

TEXT = {"recipe", "ended"}  # columns of words

Columns = dict[tuple[str, str], str]  # (protocol@version, its configuration) -> heading


@dataclass(frozen=True)
class Study:
    """The runs of one method on one backbone and budget, of which some have changed settings."""

    data: str
    title: str
    keys: tuple[str, ...]  # the settings that were changed in some run
    entries: tuple[Entry, ...]


def studies(entries: Iterable[Entry]) -> list[Study]:
    """The studies that the records hold, by data set and method."""
    found: dict[tuple[str, ...], list[Entry]] = defaultdict(list)
    for entry in sorted(entries, key=lambda entry: entry.path.as_posix()):
        record = entry.record
        own = record.pretraining
        place = (record.data.name, record.data.digest, record.backbone, record.method.name)
        version = (str(record.method.version), record.method.recipe, own.data_digest, own.precision)
        found[(*place, *version, f"{own.epochs:05}", f"{own.batch_size:05}")].append(entry)
    made = []
    for _, members in sorted(found.items()):
        keys = sorted({key for entry in members for key in entry.record.method.changed})
        if keys:
            made.append(
                Study(members[0].record.data.name, _title(members[0]), tuple(keys), tuple(members))
            )
    return made


def table(study: Study) -> str:
    """One row per combination of settings: what pretraining logged, then each protocol's metric."""
    by_settings: dict[str, list[Entry]] = defaultdict(list)
    for entry in study.entries:
        config = entry.record.method.config
        by_settings[canonical({key: config.get(key) for key in study.keys})].append(entry)
    names = _columns(study.entries)
    rows = [
        (_sort_value(members, names), _row(study, members, names))
        for members in by_settings.values()
    ]
    logged = _shared_logs(study.entries)
    columns = {column for _, row in rows for column in row} - {*study.keys, *TEXT}
    ordered = [row for _, row in sorted(rows, key=lambda pair: pair[0])]
    return markdown(ordered, right=columns | set(logged))


def _row(study: Study, members: Sequence[Entry], names: Columns) -> dict[str, str]:
    record = members[0].record
    row = {key: _cell(record.method.config.get(key)) for key in study.keys}
    row["recipe"] = "" if record.method.changed else "yes"
    pretrained = {e.record.pretraining.id: e.record.log for e in members}
    for name in _shared_logs(study.entries):
        logged = [log[name] for log in pretrained.values() if name in log]
        row[name] = f"{sum(logged) / len(logged):.3g}" if logged else ""
    metrics = _metrics(members, names)
    for column, values in metrics.items():
        row[column] = interval(values)
    statuses = sorted({e.record.status for e in members} - {"ok"})
    counts = sorted({len(values) for values in metrics.values()})
    row["seeds"] = " to ".join(map(str, dict.fromkeys([counts[0], counts[-1]]))) if counts else ""
    row["ended"] = ", ".join(statuses)
    return row


def _columns(entries: Iterable[Entry]) -> Columns:
    """A name for each way of measuring, in order; what sets two of one protocol apart is in it."""
    found: dict[tuple[str, str], Record] = {}
    for entry in entries:
        found.setdefault(_way(entry), entry.record)
    names: Columns = {}
    for way, record in found.items():
        same = [key for key in found if key[0] == way[0]]
        apart = differences([dict(flatten(found[key].protocol.config)) for key in same])
        detail = apart[same.index(way)]
        suffix = f" ({detail})" if detail else ""
        names[way] = f"{way[0]}{suffix}: {header(record.metric)}"
    order = sorted(names, key=lambda way: (not way[0].startswith(f"{FIRST}@"), names[way]))
    return {way: names[way] for way in order}


def _way(entry: Entry) -> tuple[str, str]:
    setting = setting_of(entry.record)
    return f"{setting.protocol}@{setting.protocol_version}", setting.protocol_config


def _metrics(members: Iterable[Entry], names: Columns) -> dict[str, pd.Series[float]]:
    found: dict[str, dict[int, float]] = {name: {} for name in names.values()}
    for entry in members:
        record = entry.record
        if record.metric.name in record.metrics:
            found[names[_way(entry)]][record.seed] = record.metrics[record.metric.name]
    return {
        name: pd.Series(list(values.values()), dtype="float64")
        for name, values in found.items()
        if values
    }


def _sort_value(members: Sequence[Entry], names: Columns) -> float:
    """The first column's mean, the better the smaller; rows without it come last."""
    values = _metrics(members, names).get(next(iter(names.values())))
    if values is None:
        return float("inf")
    sign = -1 if members[0].record.metric.higher_is_better else 1
    return sign * float(values.mean())


def _shared_logs(entries: Sequence[Entry]) -> list[str]:
    """What the runs logged, in its order; the loss only where there is nothing else to show."""
    names: Mapping[str, None] = dict.fromkeys(k for e in entries for k in e.record.log)
    telling = [name for name in names if not name.startswith("loss")]
    return telling or list(names)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return ", ".join(_cell(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _title(entry: Entry) -> str:
    record = entry.record
    own = record.pretraining
    seen = length(own.epochs, own.pictures, own.data)
    return f"{record.method.name} · {record.backbone} · {seen}"
