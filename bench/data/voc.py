"""Sets in the layout of the PASCAL VOC development kit (Everingham et al., IJCV 2010).

Every picture gets a main label (the class of its largest object), a multi-label, boxes in pixels
of the stored picture (which is squashed to a square), and semantic and instance masks at the
picture's own resolution, all void for a picture without a mask file.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from bench.data.annotation import Annotation, read_annotation
from bench.data.assemble import assemble, limit, limited_name
from bench.data.dataset import Boxes, DataOptions, DataSet, Split, digest_of
from bench.data.folder import Broken, FolderImages
from bench.data.masks import MaskFiles
from bench.data.statistics import Statistics
from bench.data.stored import store
from bench.errors import AbsentError, BenchError

SIZE = 256
CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
_PARTS = ("train", "val", "trainval", "test")


def load_voc(root: Path, name: str, options: DataOptions) -> DataSet:
    """Read the kit at `root`, by the lists in ImageSets/Main.

    Training pictures are trainval and test pictures test, where the kit has annotated ones;
    otherwise they are train and val.

    Raises:
        BenchError: the kit is not whole or contradicts itself; the line names file and fault.
    """
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        if not (root / part).is_dir():
            raise AbsentError(f"data set {name}: there is no folder {root / part}{_hint(root)}")
    classes = _classes(root)
    parts = ("trainval", "test") if _has_test(root) else ("train", "val")
    train, test = (_annotated(root, part, classes) for part in parts)
    keep = limit(_main_labels(train), name, options)
    if keep is not None:
        name = limited_name(name, options)
        train = dict(list(train.items())[i] for i in keep.tolist())
    broken = Broken(options.broken, options.log)
    full, statistics = _split("full", root, train, classes, options, broken)
    held, _ = _split("test", root, test, classes, options, broken)
    return assemble(name, classes, full, held, statistics)


def _hint(root: Path) -> str:
    """Where the kit may be instead: people name the folder that holds VOC2007."""
    near = sorted(root.glob("*/JPEGImages"))
    return f"; did you mean {near[0].parent}?" if near else ""


def _classes(root: Path) -> tuple[str, ...]:
    """The classes with lists of their own in ImageSets/Main, else the usual twenty."""
    stems = (path.stem.rpartition("_") for path in (root / "ImageSets/Main").glob("*_*.txt"))
    return tuple(sorted({name for name, _, part in stems if part in _PARTS})) or CLASSES


def _listed(root: Path, part: str) -> list[str]:
    path = root / "ImageSets/Main" / f"{part}.txt"
    items = path.read_text("utf-8").split() if path.is_file() else []
    if not items:
        raise BenchError(f"{path}: the list is missing or empty")
    return items


def _has_test(root: Path) -> bool:
    """Whether test pictures are annotated; VOC 2012 lists them without."""
    if not (root / "ImageSets/Main/test.txt").is_file():
        return False
    return (root / "Annotations" / f"{_listed(root, 'test')[0]}.xml").is_file()


def _annotated(root: Path, part: str, classes: tuple[str, ...]) -> dict[str, Annotation]:
    """The annotations of the pictures of `part`, by picture."""
    items = _listed(root, part)
    return {item: read_annotation(root / "Annotations" / f"{item}.xml", classes) for item in items}


def _main_labels(notes: dict[str, Annotation]) -> Tensor:
    return torch.stack([note.main_label for note in notes.values()])


def _split(
    name: str,
    root: Path,
    notes: dict[str, Annotation],
    classes: tuple[str, ...],
    options: DataOptions,
    broken: Broken,
) -> tuple[Split, Statistics]:
    size = options.size or SIZE
    paths = [f"JPEGImages/{item}.jpg" for item in notes]
    listing = digest_of("\n".join(paths), torch.tensor([_bytes(root / path) for path in paths]))
    stored = store(FolderImages(root, paths, size, broken, options.workers), listing)
    notes = dict(list(notes.items())[i] for i in stored.kept.tolist())
    labels = _main_labels(notes)
    multilabel = torch.stack([note.multilabel(len(classes)) for note in notes.values()])
    boxes = tuple(note.boxes_at(size) for note in notes.values())
    semantic = _masks(root / "SegmentationClass", notes, len(classes))
    instances = _masks(root / "SegmentationObject", notes)
    digest = digest_of(stored.digest, labels, *_flat(boxes), semantic.digest, instances.digest)
    split = Split(
        name=name,
        images=stored.images,
        digest=digest,
        labels=labels,
        multilabel=multilabel,
        boxes=boxes,
        semantic=semantic,
        instances=instances,
    )
    return split, stored.statistics


def _masks(folder: Path, notes: dict[str, Annotation], classes: int | None = None) -> MaskFiles:
    """The masks in `folder`, of classes or (where no number of them is given) of objects."""
    paths = [folder / f"{item}.png" for item in notes]
    sizes = [(note.width, note.height) for note in notes.values()]
    largest = [classes or len(note.boxes.label) for note in notes.values()]
    existing = [path if path.is_file() else None for path in paths]
    return MaskFiles(existing, sizes, largest, objects=classes is None)


def _flat(boxes: tuple[Boxes, ...]) -> tuple[Tensor, ...]:
    """Every box in four tensors, for the digest."""
    return (
        torch.tensor([len(found.label) for found in boxes]),
        torch.cat([found.xyxy for found in boxes]),
        torch.cat([found.label for found in boxes]),
        torch.cat([found.difficult for found in boxes]),
    )


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise BenchError(f"{path}: the picture is missing, but ImageSets/Main lists it") from error
