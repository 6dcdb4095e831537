"""One picture's PASCAL VOC annotation: its size and its objects."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bench.data.dataset import Boxes
from bench.errors import BenchError

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class Annotation:
    """The picture's size, and its objects in its own pixels, `[x0, x1)` counted from 0."""

    width: int
    height: int
    boxes: Boxes

    @property
    def main_label(self) -> Tensor:
        """The class of the largest object."""
        x0, y0, x1, y1 = self.boxes.xyxy.unbind(1)
        return self.boxes.label[((x1 - x0) * (y1 - y0)).argmax()]

    def multilabel(self, classes: int) -> Tensor:
        """`[classes]` int8: 1 present, 0 absent, -1 where every such object is difficult."""
        found = torch.zeros(classes, dtype=torch.int8)
        found[self.boxes.label] = -1
        found[self.boxes.label[~self.boxes.difficult]] = 1
        return found

    def boxes_at(self, size: int) -> Boxes:
        """The objects in pixels of the picture squashed to `size` x `size`."""
        scale = torch.tensor([size / self.width, size / self.height]).repeat(2)
        return Boxes(self.boxes.xyxy * scale, self.boxes.label, self.boxes.difficult)


def read_annotation(path: Path, classes: tuple[str, ...]) -> Annotation:
    """Read an annotation file.

    Raises:
        BenchError: the file is missing or no XML, or a size, box or class in it is wrong.
    """
    try:
        root = ET.parse(path).getroot()
    except FileNotFoundError as error:
        raise BenchError(f"{path}: the annotation is missing") from error
    except ET.ParseError as error:
        raise BenchError(f"{path}: the annotation is not XML: {error}") from error
    width, height = (int(_number(path, root, f"size/{side}")) for side in ("width", "height"))
    if width < 1 or height < 1:
        raise BenchError(f"{path}: the size is {width} x {height} px")
    objects = root.findall("object")
    if not objects:
        raise BenchError(f"{path}: there is no object, so the picture has no main label")
    labels = [_label(path, thing, classes) for thing in objects]
    corners = [_box(path, thing, width, height) for thing in objects]
    difficult = [thing.findtext("difficult", "0").strip() == "1" for thing in objects]
    boxes = Boxes(torch.tensor(corners), torch.tensor(labels), torch.tensor(difficult))
    return Annotation(width, height, boxes)


def _number(path: Path, node: ET.Element, field: str) -> float:
    text = node.findtext(field)
    if text is None:
        raise BenchError(f"{path}: <{field}> is missing")
    try:
        return float(text)  # a few boxes of VOC 2011 have fractions
    except ValueError as error:
        raise BenchError(f"{path}: <{field}> is {text!r}, not a number") from error


def _label(path: Path, thing: ET.Element, classes: tuple[str, ...]) -> int:
    name = thing.findtext("name", "").strip()
    if name not in classes:
        raise BenchError(f"{path}: unknown class {name!r}; known are {', '.join(classes)}")
    return classes.index(name)


def _box(path: Path, thing: ET.Element, width: int, height: int) -> tuple[float, ...]:
    x0, y0, x1, y1 = (_number(path, thing, f"bndbox/{corner}") for corner in _CORNERS)
    # The kit counts pixels from 1 and includes the last one. Tools that count from 0 are common
    # enough to forgive: a box may begin at 0, and then loses nothing but that column.
    if not (0 <= x0 <= x1 <= width and 0 <= y0 <= y1 <= height and x1 >= 1 and y1 >= 1):
        raise BenchError(
            f"{path}: box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) is not in the picture of "
            f"{width} x {height} px"
        )
    return max(x0 - 1, 0.0), max(y0 - 1, 0.0), x1, y1
