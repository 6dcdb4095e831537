"""Sets in COCO's layout (Lin et al., arXiv:1405.0312): pictures, and objects in a json file.

Every picture gets a main label (the class of its largest object), a multi-label, boxes in pixels
of the stored picture (which is squashed to a square), and semantic and instance masks at the
picture's own resolution. Crowds are difficult objects, and void in masks.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from pycocotools import mask as rle
from torch import Tensor

from bench.data.annotation import Annotation
from bench.data.assemble import assemble, limit, limited_name
from bench.data.dataset import Boxes, DataOptions, DataSet, LazyMasks, Split, digest_of
from bench.data.folder import Broken, FolderImages
from bench.data.masks import VOID
from bench.data.statistics import Statistics
from bench.data.stored import store
from bench.errors import AbsentError, BenchError

SIZE = 256
SLACK = 1.0  # pixels by which a box may stick out: COCO's are rounded; it is clipped


@dataclass(frozen=True)
class Picture:
    """A picture's file below the set's folder, its objects, and how each is drawn."""

    path: str
    note: Annotation
    drawn: tuple[Any, ...]  # COCO's `segmentation` of each object: polygons, or a run-length code


def load_coco(root: Path, name: str, options: DataOptions) -> DataSet:
    """Read annotations/instances_{train,val}*.json and the pictures in the folders they name.

    Training pictures are train, test pictures val: COCO's own test has no annotations. Pictures
    without an object have no main label and are left out, as are boxes without an area.

    Raises:
        BenchError: the set is not whole or contradicts itself; the line names file and fault.
    """
    files = {part: _instances(root, name, part) for part in ("train", "val")}
    notes = {part: _read(path) for part, path in files.items()}
    classes = _classes(files["train"], notes["train"])
    train, test = (
        _pictures(root, files[part], notes[part], classes, options.log) for part in files
    )
    names = tuple(classes.values())
    keep = limit(_main_labels(train), name, options)
    if keep is not None:
        name = limited_name(name, options)
        train = [train[i] for i in keep.tolist()]
    broken = Broken(options.broken, options.log)
    full, statistics = _split("full", root, train, names, options, broken)
    held, _ = _split("test", root, test, names, options, broken)
    return assemble(name, names, full, held, statistics)


def _instances(root: Path, name: str, part: str) -> Path:
    folder, pattern = root / "annotations", f"instances_{part}*.json"
    found = sorted(folder.glob(pattern))
    if not found:
        raise AbsentError(f"data set {name}: there is no {folder / pattern}")
    if len(found) > 1:
        both = f"{found[0].name} and {found[1].name}"
        raise BenchError(f"{folder} holds {both}; give a folder with one of them")
    return found[0]


def _read(path: Path) -> dict[str, Any]:
    try:
        notes = json.loads(path.read_bytes())
    except ValueError as error:
        raise BenchError(f"{path}: the annotations are not JSON: {error}") from error
    lists = ("images", "annotations", "categories")
    if not isinstance(notes, dict) or not all(isinstance(notes.get(key), list) for key in lists):
        raise BenchError(f"{path}: the lists {', '.join(lists)} are not all there")
    for key in lists:
        if strange := [row for row in notes[key] if not isinstance(row, dict)]:
            raise BenchError(f"{path}: {key} holds {strange[0]!r}, which is no object of JSON")
    return notes


def _field(path: Path, what: str, record: Mapping[str, Any], key: str, kind: type) -> Any:
    value = record.get(key)
    if not isinstance(value, kind):
        fault = "is missing" if value is None else f"is {value!r}"
        raise BenchError(f"{path}: {key} of {what} {fault}")
    return value


def _classes(path: Path, notes: dict[str, Any]) -> dict[int, str]:
    """Names by category, in the order of their numbers, which have gaps in COCO."""
    named = {
        _field(path, "a category", row, "id", int): _field(path, "a category", row, "name", str)
        for row in notes["categories"]
    }
    return dict(sorted(named.items()))


def _pictures(
    root: Path, path: Path, notes: dict[str, Any], classes: dict[int, str], log: list[str]
) -> list[Picture]:
    """The pictures with an object, each with all of its own."""
    folder = path.stem.removeprefix("instances_")
    images = {_field(path, "a picture", row, "id", int): row for row in notes["images"]}
    things: dict[int, list[Mapping[str, Any]]] = {number: [] for number in images}
    for thing in notes["annotations"]:
        what = f"object {thing.get('id')}"
        of = _field(path, what, thing, "image_id", int)
        if of not in images:
            raise BenchError(f"{path}: {what} is of picture {of}, which is not listed")
        things[of].append(thing)
    number = {category: place for place, category in enumerate(classes)}
    found, flat = [], 0
    for key, row in images.items():
        file = _field(path, f"picture {key}", row, "file_name", str)
        width, height = (
            int(_field(path, f"picture {file}", row, side, int)) for side in ("width", "height")
        )
        if width < 1 or height < 1:
            raise BenchError(f"{path}: picture {file} is {width} x {height} px")
        boxes = [_box(path, file, thing, width, height) for thing in things[key]]
        labels = [_label(path, file, thing, number) for thing in things[key]]
        solid = [i for i, (x0, y0, x1, y1) in enumerate(boxes) if x1 > x0 and y1 > y0]
        flat += len(boxes) - len(solid)
        if not solid:
            continue
        crowd = [bool(things[key][i].get("iscrowd", 0)) for i in solid]
        own = Boxes(
            torch.tensor([boxes[i] for i in solid]),
            torch.tensor([labels[i] for i in solid]),
            torch.tensor(crowd),
        )
        drawn = tuple(things[key][i].get("segmentation") for i in solid)
        found.append(Picture(f"{folder}/{file}", Annotation(width, height, own), drawn))
    if flat:
        log.append(f"{path}: {flat} boxes without an area were left out")
    if len(found) < len(images):
        log.append(f"{path}: {len(images) - len(found)} pictures without an object were left out")
    return found


def _box(
    path: Path, file: str, thing: Mapping[str, Any], width: int, height: int
) -> tuple[float, ...]:
    what = f"object {thing.get('id')} in {file}"
    box = _field(path, what, thing, "bbox", list)
    if len(box) != 4 or not all(isinstance(value, int | float) for value in box):
        raise BenchError(f"{path}: bbox of {what} is {box!r}, not x, y, width, height")
    x, y, across, down = box
    inside = x >= -SLACK and y >= -SLACK and across >= 0 and down >= 0
    if not (inside and x + across <= width + SLACK and y + down <= height + SLACK):
        raise BenchError(
            f"{path}: bbox ({x:g}, {y:g}, {across:g}, {down:g}) of {what} is not in the picture "
            f"of {width} x {height} px"
        )
    return (
        max(float(x), 0.0),
        max(float(y), 0.0),
        min(float(x + across), float(width)),
        min(float(y + down), float(height)),
    )


def _label(path: Path, file: str, thing: Mapping[str, Any], number: dict[int, int]) -> int:
    category = thing.get("category_id")
    if category not in number:
        raise BenchError(
            f"{path}: object {thing.get('id')} in {file} has the unknown category {category!r}; "
            "categories are those of the training file"
        )
    return number[category]


def _main_labels(pictures: list[Picture]) -> Tensor:
    return torch.stack([picture.note.main_label for picture in pictures])


def _split(
    name: str,
    root: Path,
    pictures: list[Picture],
    classes: tuple[str, ...],
    options: DataOptions,
    broken: Broken,
) -> tuple[Split, Statistics]:
    size = options.size or SIZE
    if not pictures:
        raise BenchError(f"{root}: no picture of the {name} split has an object")
    paths = [picture.path for picture in pictures]
    listing = digest_of("\n".join(paths), torch.tensor([_bytes(root / path) for path in paths]))
    stored = store(FolderImages(root, paths, size, broken, options.workers), listing)
    pictures = [pictures[i] for i in stored.kept.tolist()]
    notes = [picture.note for picture in pictures]
    boxes = tuple(note.boxes_at(size) for note in notes)
    bare = sum(not shape for picture in pictures for shape in picture.drawn)
    drawn = not bare
    if bare:
        objects = "objects are" if bare > 1 else "object is"
        options.log.append(f"{root}: {bare} {objects} not drawn, so the {name} split has no masks")
    told = json.dumps([picture.drawn for picture in pictures])
    split = Split(
        name=name,
        images=stored.images,
        digest=digest_of(
            stored.digest,
            torch.tensor([len(note.boxes.label) for note in notes]),
            torch.cat([found.xyxy for found in boxes]),
            torch.cat([found.label for found in boxes]),
            torch.cat([found.difficult for found in boxes]),
            told,
        ),
        labels=_main_labels(pictures),
        multilabel=torch.stack([note.multilabel(len(classes)) for note in notes]),
        boxes=boxes,
        semantic=DrawnMasks(pictures, objects=False) if drawn and len(classes) < VOID else None,
        instances=DrawnMasks(pictures, objects=True) if drawn else None,
        names=[picture.path for picture in pictures],
    )
    return split, stored.statistics


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise BenchError(f"{path}: the picture is missing, but the annotations list it") from error


class DrawnMasks(LazyMasks):
    """Masks `[H, W]` uint8 at their pictures' own resolution, filled in when they are asked for.

    Smaller objects lie over larger ones. With `objects` values are numbers of objects rather than
    of classes; those from 254 on are void.
    """

    def __init__(self, pictures: list[Picture], *, objects: bool) -> None:
        self.pictures = pictures
        self.objects = objects

    def __len__(self) -> int:
        return len(self.pictures)

    @overload
    def __getitem__(self, at: int) -> Tensor: ...
    @overload
    def __getitem__(self, at: slice) -> list[Tensor]: ...
    def __getitem__(self, at: int | slice) -> Tensor | list[Tensor]:
        """The mask of picture `at`.

        Raises:
            BenchError: an object is drawn neither as polygons nor as a run-length code of the size.
        """
        if isinstance(at, slice):
            return [self[i] for i in range(len(self))[at]]
        picture = self.pictures[at]
        note = picture.note
        shape = (note.height, note.width)
        shapes = [_filled(picture.path, drawn, shape) for drawn in picture.drawn]
        mask = np.zeros(shape, np.uint8)
        for i in sorted(range(len(shapes)), key=lambda i: -int(shapes[i].sum())):
            value = i + 1 if self.objects else int(note.boxes.label[i]) + 1
            mask[shapes[i]] = VOID if note.boxes.difficult[i] else min(value, VOID)
        return torch.from_numpy(mask)

    def take(self, index: Tensor) -> DrawnMasks:
        """The masks at `index`, still undrawn."""
        return DrawnMasks([self.pictures[i] for i in index.tolist()], objects=self.objects)


def _filled(path: str, drawn: Any, shape: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """An object's pixels, `[H, W]` bool, from polygons or a run-length code."""
    try:
        with warnings.catch_warnings():  # pycocotools' own, on numpy 2
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
            coded = rle.frPyObjects(drawn, *shape) if _uncoded(drawn) else drawn
            filled = rle.decode(rle.merge(coded) if isinstance(coded, list) else coded)
    except Exception as error:  # pycocotools raises nothing narrower
        raise BenchError(f"{path}: an object's segmentation cannot be read: {error}") from error
    if filled.shape != shape:
        raise BenchError(
            f"{path}: a segmentation is of {filled.shape[1]} x {filled.shape[0]} px, "
            f"the picture {shape[1]} x {shape[0]} px"
        )
    return np.asarray(filled, np.bool_)


def _uncoded(drawn: Any) -> bool:
    """Whether it is polygons or counts in a list, which pycocotools has to encode first."""
    return isinstance(drawn, list) or isinstance(drawn["counts"], list)
