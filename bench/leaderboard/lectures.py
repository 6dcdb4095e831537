"""The tables that lectures show, from published numbers, with ours beside them.

Ours are measured on other pictures, with a smaller network and less of everything: it is their
order that can be held against the papers', so each pair of columns says how far the two agree.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd
from scipy.stats import spearmanr

from bench.leaderboard.groups import NO_BACKBONE, Entry, length, role_of
from bench.leaderboard.statistics import interval
from bench.leaderboard.tables import markdown
from bench.record import Record, canonical

COMMON = 4  # methods that two orders must share to be compared
PAPER, HERE = "paper", "here"
Published = Mapping[str, Any]  # a line of the published table
Rows = dict[str, dict[str, dict[int, float]]]  # row -> variant -> seed -> value

OURS = {  # names of papers, but for case and punctuation
    "random": "random_init",
    "randomgaussian": "random_init",
    "randominit": "random_init",
    "randomrescaledkrahenbuhl": "krahenbuhl_init",
    "imagenetlabels": "supervised",
    "supervised": "supervised",
    "supervisednin": "supervised",
    "supervisedbaseline": "supervised_few_labels",
    "autoencoder": "autoencoder",
    "egomotion": "egomotion",
    "egomotionagrawaletal": "egomotion",
    "tracking": "tracking",
    "trackingwanggupta": "tracking",
    "context": "relative_patch",
    "contextdoerschetal": "relative_patch",
    "contextrelativepatch": "relative_patch",
    "contextencoder": "context_encoder",
    "contextencoders": "context_encoder",
    "instdiscnpid": "instdisc",
    "rotnetnonlinear": "rotnet",
    "pseudolabel": "pseudo_label",
    "vatentropymin": "vat_entmin",
    "udawrandaug": "uda",
    "fixmatchwrandaug": "fixmatch",
    "s4lrotvatentropymin": "s4l",
    "mplwrandaug": "mpl",
    "byolconcurrent": "byol",
    "simclrv2": "simclr_v2",
    **{
        name.replace("_", ""): name
        for name in (
            *("rotnet", "bigan", "colorization", "jigsaw", "nat", "counting", "split_brain"),
            *("deepcluster", "instdisc", "pirl", "cmc", "cpc", "moco_v1", "moco_v2", "moco_v3"),
            *("simclr", "byol", "simsiam", "swav", "barlow_twins", "vicreg", "dino", "ibot"),
            *("dinov2", "esvit", "mugs", "msn", "mae", "clip", "cowmix", "mean_teacher"),
        )
    },
}
METRICS = {"mAP_11pt": "mAP_11"}  # as published -> ours
DATA = {  # ours -> as published
    "food101": "Food-101",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "birdsnap": "Birdsnap",
    "sun397": "SUN397",
    "cars": "Stanford Cars",
    "aircraft": "FGVC Aircraft",
    "voc": "VOC2007",
    "dtd": "DTD",
    "pets": "Oxford Pets",
    "caltech101": "Caltech-101",
    "flowers102": "Oxford Flowers",
}


class Column(NamedTuple):
    """A pair of columns: which published lines, and which of our records."""

    heading: str
    published: Mapping[str, str]
    protocol: str
    metric: str  # "": that of each published line
    config: Mapping[str, object] = {}  # of our protocol, or else of the method
    unless_other: Mapping[str, object] = {}  # the same, of protocols that have such settings
    method: str = ""  # "": the rows are methods


@dataclass(frozen=True)
class Lecture:
    """A table: its rows are methods, unless other keys are given."""

    title: str
    source: str
    tables: tuple[str, ...]  # in the published file
    columns: tuple[Column, ...]
    theirs: Callable[[Published], str]
    ours: Callable[[Record], str]
    settings: bool = False  # rows are settings of one method
    data: bool = False  # rows are data sets


def method_of(line: Published) -> str:
    """Our name of a published line's method, or theirs where we have none."""
    plain = "".join(c for c in str(line["method"]).lower() if c.isalnum())
    return OURS.get(plain, str(line["method"]))


def _angles(line: Published) -> str:
    return str(line["variant"]).removeprefix("rotations=").replace(";", ", ")


def _own_angles(record: Record) -> str:
    angles = record.method.config.get("angles")
    return ", ".join(map(str, angles)) if isinstance(angles, list) else ""


def _transfer(title: str, protocol: str, theirs: str) -> Lecture:
    columns = tuple(
        Column(name, {"method": name, "protocol": theirs}, protocol, "", method=ours)
        for name, ours in (("SimCLR", "simclr"), ("Supervised", "supervised"))
    )
    return Lecture(
        title,
        "Chen et al. 2020 (arXiv:2002.05709), Table 8",
        ("simclr_t8_transfer12_r50x4",),
        columns,
        lambda line: str(line["dataset"]),
        lambda record: DATA.get(record.data.name.partition("-")[0], ""),
        data=True,
    )


def _pascal(title: str, source: str, table: str, fc: bool) -> Lecture:
    classify, detect = "voc07_cls", "voc07_det_fastrcnn_all"
    columns = (
        *(
            (_voc("classification, fc6-8", f"{classify}_fc6-8", "mAP", {"mode": "fc6-8"}),)
            if fc
            else ()
        ),
        _voc("classification, all", f"{classify}_all", "mAP", {"mode": "all"}),
        Column("detection", {"protocol": detect}, "voc_detection", "AP50", {"frozen": False}),
        Column(
            "segmentation",
            {"protocol": "voc12_seg_fcn32s_all"},
            "voc_segmentation",
            "mIoU",
            {"frozen": False},
        ),
    )
    return Lecture(title, source, (table,), columns, method_of, lambda r: r.method.name)


def _voc(heading: str, theirs: str, metric: str, config: Mapping[str, object]) -> Column:
    return Column(heading, {"protocol": theirs}, "voc_classification", metric, config)


def _methods(title: str, source: str, table: str, *columns: Column) -> Lecture:
    return Lecture(title, source, (table,), columns, method_of, lambda r: r.method.name)


LECTURES = (
    Lecture(
        "How many rotations to tell apart",
        "Gidaris et al. 2018 (arXiv:1803.07728), Table 2",
        ("rotnet_t2_rotations",),
        (Column("top1, non-linear probe", {}, "nonlinear", "top1", method="rotnet"),),
        _angles,
        _own_angles,
        settings=True,
    ),
    _pascal(
        "PASCAL VOC, as Context Encoders have it",
        "Pathak et al. 2016 (arXiv:1604.07379), Table 2",
        "context_encoder_t2_voc",
        fc=False,
    ),
    _pascal(
        "PASCAL VOC, as RotNet has it (initialisations rescaled)",
        "Gidaris et al. 2018 (arXiv:1803.07728), Table 7",
        "rotnet_t7_voc",
        fc=True,
    ),
    _methods(
        "Non-linear classifier on frozen layers",
        "Gidaris et al. 2018 (arXiv:1803.07728), Table 4, conv4",
        "rotnet_t4_imagenet_nonlinear",
        Column("top1", {"variant": "conv4"}, "nonlinear", "top1"),
    ),
    _methods(
        "Linear probe and kNN of the latest methods",
        "Oquab et al. 2023 (arXiv:2304.07193), Table 4, ImageNet",
        "dinov2_t4_imagenet",
        Column("kNN", {"protocol": "knn"}, "knn", "top1"),
        Column("linear", {"protocol": "linear", "dataset": "ImageNet-1k"}, "linear", "top1"),
    ),
    _methods(
        "Few labels",
        "Chen et al. 2020 (arXiv:2006.10029), Table 3, top5 on ImageNet",
        "simclrv2_t3_semisup",
        *(
            Column(
                f"top5, {share:.0%} of labels",
                {"label_fraction": f"{share:.0%}", "metric": "top5"},
                "label_fraction|classifier",
                "top5",
                {"labels": share},
                {"mode": "finetune", "distil": False},
            )
            for share in (0.01, 0.1)
        ),
    ),
    _transfer("Twelve data sets, linear", "logreg", "linear_logreg_lbfgs"),
    _transfer("Twelve data sets, fine-tuned", "finetune", "finetune_sgd_20k"),
)


def lectures(entries: Iterable[Entry], published: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """(title, markdown) of every lecture's table of which the records hold something.

    Args:
        entries: records with their paths.
        published: the published table.
    """
    if "table" not in published:
        return
    records = [e.record for e in sorted(entries, key=lambda e: e.path.as_posix())]
    good = [record for record in records if record.status == "ok"]
    for lecture in LECTURES:
        lines = published[published["table"].isin(lecture.tables)].to_dict("records")
        theirs = [_theirs(lecture, column, lines) for column in lecture.columns]
        wanted = {row: metric for found in theirs for row, (_, metric) in found.items()}
        ours = [_ours(lecture, column, good, wanted) for column in lecture.columns]
        if any(found for found, _ in ours):
            values = [{row: value for row, (value, _) in found.items()} for found in theirs]
            yield lecture.title, _body(lecture, values, ours)


def _theirs(
    lecture: Lecture, column: Column, lines: Sequence[Mapping[Any, Any]]
) -> dict[str, tuple[float, str]]:
    """The best published number of each row, and its metric by our name."""
    found: dict[str, tuple[float, str]] = {}
    for line in lines:
        if all(line[key] == value for key, value in column.published.items()):
            row, value = lecture.theirs(line), float(line["value"])
            if row not in found or value > found[row][0]:
                found[row] = value, METRICS.get(line["metric"], line["metric"])
    return found


def _ours(
    lecture: Lecture, column: Column, records: Sequence[Record], wanted: Mapping[str, str]
) -> tuple[dict[str, pd.Series[float]], str]:
    """Our numbers by row, of the one setting that has most of the rows, and what it is."""
    settings: dict[tuple[str, ...], Rows] = defaultdict(dict)
    shared: list[tuple[Record, str]] = []

    def put(rows: Rows, row: str, record: Record) -> None:
        value = record.metrics.get(column.metric or wanted[row])
        if value is not None:
            seeds = rows.setdefault(row, {}).setdefault(_variant(record, column), {})
            seeds.setdefault(record.seed, value)

    for record in records:
        row = lecture.ours(record)
        if row not in wanted or not _fits(record, column, lecture.settings):
            continue
        if role_of(record):
            shared.append((record, row))
        else:
            put(settings[_setting(record, lecture, column)], row, record)
    if not settings:
        for record, row in shared:
            put(settings[_setting(record, lecture, column)], row, record)
    if not settings:
        return {}, ""
    most = Counter({key: len(found) for key, found in sorted(settings.items())})
    place, _ = most.most_common(1)[0]
    for record, row in shared:
        own = _setting(record, lecture, column)
        anywhere = record.method.name in NO_BACKBONE
        if own[:2] == place[:2] and (anywhere or own[2] == place[2]):
            put(settings[place], row, record)
    # A row is of one variant of its method, that of most seeds: never a mixture.
    chosen = {
        row: max(sorted(variants.items()), key=lambda item: len(item[1]))[1]
        for row, variants in settings[place].items()
    }
    told = " · ".join(part for part in (place[0].partition("@")[0], *place[2:]) if part)
    return {row: pd.Series(list(by_seed.values())) for row, by_seed in chosen.items()}, told


def _fits(record: Record, column: Column, settings: bool) -> bool:
    protocol = record.protocol
    config = {**record.method.config, **protocol.config}
    changed = set(record.method.changed) - set(column.config)
    if protocol.name == "label_fraction" and record.method.labels_used:
        return False  # its pretraining saw other labels than the few
    return (
        protocol.name in column.protocol.split("|")
        and column.method in ("", record.method.name)
        and (settings or not changed)
        and all(config.get(key) == value for key, value in column.config.items())
        and all(
            protocol.config.get(key, value) == value for key, value in column.unless_other.items()
        )
    )


def _setting(record: Record, lecture: Lecture, column: Column) -> tuple[str, ...]:
    """Data, protocol, backbone and budget, which all rows of a column share."""
    own, protocol = record.pretraining, record.protocol
    data = f"{record.data.name}@{record.data.digest}"
    rest = {k: v for k, v in protocol.config.items() if k not in column.config}
    how = canonical([protocol.name, protocol.version, rest])
    trained = length(own.epochs, own.pictures, own.data) if own.epochs else ""
    if "|" in column.protocol:  # few labels, learnt from in two ways, each as it does
        how = trained = ""
    if lecture.data:
        data = ""
    return data, how, record.backbone, trained


def _variant(record: Record, column: Column) -> str:
    own, method = record.pretraining, record.method
    rest = {k: v for k, v in record.protocol.config.items() if k not in column.config}
    protocol = [record.protocol.version, rest]
    return canonical([method.version, method.recipe, own.epochs, own.data_digest, protocol])


def _body(
    lecture: Lecture,
    theirs: Sequence[Mapping[str, float]],
    ours: Sequence[tuple[Mapping[str, pd.Series[float]], str]],
) -> str:
    names = dict.fromkeys(row for found in theirs for row in found)
    headings = [(f"{c.heading}: {PAPER}", f"{c.heading}: {HERE}") for c in lecture.columns]
    rows = []
    for name in names:
        cells = {"": f"`{name}`" if name in OURS.values() else name}
        for (paper, here), published, (found, _) in zip(headings, theirs, ours, strict=True):
            cells[paper] = f"{published[name]:.1f}" if name in published else ""
            cells[here] = interval(found[name]) if name in found else ""
        rows.append(cells)
    blocks = [f"*{PAPER}*: {lecture.source}."]
    blocks.append(markdown(rows, right={heading for pair in headings for heading in pair}))
    notes = []
    for column, published, (found, told) in zip(lecture.columns, theirs, ours, strict=True):
        if not found:
            continue
        note = f"- {column.heading}, *{HERE}*: {told}"
        both = [row for row in found if row in published]
        if len(both) >= COMMON:
            means = [float(found[row].mean()) for row in both]
            rho = float(spearmanr([published[row] for row in both], means).statistic)
            note += f"; order of {len(both)} rows against the paper's: Spearman {rho:+.2f}"
        notes.append(note)
    return "\n\n".join([*blocks, "\n".join(notes)])
