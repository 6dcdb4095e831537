"""The COCO reader: every kind of label, against pycocotools and torchvision, and its complaints."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO
from torchvision.datasets import CocoDetection

from bench.data import catalog
from bench.data.dataset import DataOptions, DataSet
from bench.errors import BenchError

WIDTH, HEIGHT = 80, 60  # of every picture of the tiny set
CATEGORIES = {7: "dog", 3: "cat", 90: "car"}  # with gaps and out of order, as in COCO
Notes = dict[str, Any]


def rectangle(x: float, y: float, w: float, h: float) -> list[list[float]]:
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def coded(x: int, y: int, w: int, h: int) -> dict[str, Any]:
    """A crowd's run-length code, its counts in a list as in COCO's files."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[y : y + h, x : x + w] = 1
    flat = mask.flatten(order="F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *ends, len(flat)]).tolist()
    return {"size": [HEIGHT, WIDTH], "counts": counts if not flat[0] else [0, *counts]}


THINGS: list[list[tuple[int, tuple[int, int, int, int], int]]] = [  # category, bbox, crowd
    [(3, (0, 0, 40, 30), 0), (7, (10, 5, 20, 10), 0)],
    [(90, (30, 10, 50, 50), 1), (3, (5, 5, 10, 10), 0)],
    [(7, (0, 0, 80, 60), 0)],
    [(90, (2, 3, 30, 20), 1), (7, (40, 30, 20, 20), 0), (90, (60, 5, 10, 10), 1)],
]


def notes(numbers: range) -> Notes:
    images, annotations = [], []
    for number in numbers:
        name = f"{number:012}.jpg"
        images.append({"id": number + 100, "file_name": name, "width": WIDTH, "height": HEIGHT})
        for category, bbox, crowd in THINGS[number % len(THINGS)]:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number + 100,
                    "category_id": category,
                    "bbox": list(bbox),
                    "area": bbox[2] * bbox[3],
                    "iscrowd": crowd,
                    "segmentation": coded(*bbox) if crowd else rectangle(*bbox),
                }
            )
    categories = [{"id": number, "name": name} for number, name in CATEGORIES.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def path_of(root: Path, part: str) -> Path:
    return root / "annotations" / f"instances_{part}2017.json"


def write(root: Path, part: str, made: Notes) -> None:
    path_of(root, part).write_text(json.dumps(made))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "COCO"
    (root / "annotations").mkdir(parents=True)
    for part, numbers in (("train", range(20)), ("val", range(20, 26))):
        (root / f"{part}2017").mkdir()
        write(root, part, notes(numbers))
        for number in numbers:
            pixels = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
            Image.fromarray(pixels).save(root / f"{part}2017" / f"{number:012}.jpg")
    return root


def load(root: Path, **options: int) -> DataSet:
    return catalog.load(f"coco:{root}", DataOptions(**options))


# ------------------------------------------------------------------------------------------ labels
def test_pictures_and_boxes_are_those_that_torchvision_reads(root: Path) -> None:
    data = load(root, size=40)
    truth = CocoDetection(root / "train2017", path_of(root, "train"))
    assert data.info.name == "coco-COCO"
    assert data.info.classes == ("cat", "dog", "car")
    assert data.info.has == {"color", "labels", "multilabel", "boxes", "masks"}
    assert (len(data.full), len(data.test)) == (20, 6)
    _, pixels = next(iter(data.full.images.stream([torch.arange(20)])))
    scale = torch.tensor([40 / WIDTH, 40 / HEIGHT]).repeat(2)
    for i, (image, things) in enumerate(truth):
        resized = image.resize((40, 40), Image.Resampling.BILINEAR)
        assert np.array_equal(pixels[i].numpy().transpose(1, 2, 0), np.asarray(resized))
        boxes = data.full.boxes[i]
        corners = torch.tensor([thing["bbox"] for thing in things], dtype=torch.float32)
        corners[:, 2:] += corners[:, :2]
        assert torch.allclose(boxes.xyxy, corners * scale)
        named = [CATEGORIES[thing["category_id"]] for thing in things]
        assert [data.info.classes[k] for k in boxes.label.tolist()] == named
        assert boxes.difficult.tolist() == [thing["iscrowd"] == 1 for thing in things]


def test_main_and_multi_labels(root: Path) -> None:
    data = load(root)
    assert data.full.labels[:4].tolist() == [0, 2, 1, 2]  # of the largest object
    expected = [[1, 1, 0], [1, 0, -1], [0, 1, 0], [0, 1, -1]]  # -1: nothing but crowds
    assert data.full.multilabel[:4].tolist() == expected


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools' own, on numpy 2
def test_masks_are_those_of_pycocotools(root: Path) -> None:
    data, truth = load(root), COCO(path_of(root, "train"))
    for i in range(4):
        things = truth.imgToAnns[100 + i]
        filled = [truth.annToMask(thing).astype(bool) for thing in things]
        semantic, instances = np.zeros((2, HEIGHT, WIDTH), np.uint8)
        for k in sorted(range(len(things)), key=lambda k: -filled[k].sum()):
            crowd = things[k]["iscrowd"] == 1
            label = data.info.classes.index(CATEGORIES[things[k]["category_id"]])
            semantic[filled[k]] = 255 if crowd else label + 1
            instances[filled[k]] = 255 if crowd else k + 1
        assert np.array_equal(data.full.semantic[i].numpy(), semantic)
        assert np.array_equal(data.full.instances[i].numpy(), instances)
    assert (data.full.semantic[0].numpy()[5:15, 10:30] == 2).all(), "the small dog is on the cat"
    taken = data.full.take(torch.tensor([3, 0])).semantic
    assert torch.equal(taken[1], data.full.semantic[0])


def test_a_set_without_segmentations_has_no_masks(root: Path) -> None:
    made = notes(range(20))
    del made["annotations"][3]["segmentation"]
    write(root, "train", made)
    assert "masks" not in load(root).info.has


def test_compressed_codes_are_read_too(root: Path) -> None:
    made = notes(range(20))
    packed = rle.frPyObjects(coded(30, 10, 50, 50), HEIGHT, WIDTH)
    before = load(root).full.semantic[1]
    made["annotations"][2]["segmentation"] = packed | {"counts": packed["counts"].decode()}
    write(root, "train", made)
    assert torch.equal(load(root).full.semantic[1], before)


def test_what_has_no_object_or_no_area_is_left_out_and_told(root: Path) -> None:
    made = notes(range(20))
    whole = load(root)
    made["annotations"] = [row for row in made["annotations"] if row["image_id"] != 101]
    made["annotations"][1]["bbox"] = [10, 5, 0, 10]
    write(root, "train", made)
    options = DataOptions()
    data = catalog.load(f"coco:{root}", options)
    assert len(data.full) == 19
    assert data.full.boxes[0].label.tolist() == [0]
    assert data.full.labels.tolist()[1:] == whole.full.labels.tolist()[2:]
    assert "1 boxes without an area" in options.log[0]
    assert "1 pictures without an object" in options.log[1]


def test_boxes_that_stick_out_by_rounding_are_clipped(root: Path) -> None:
    made = notes(range(20))
    made["annotations"][0]["bbox"] = [-0.4, 0, 80.9, 60.5]
    write(root, "train", made)
    assert load(root, size=20).full.boxes[0].xyxy[0].tolist() == [0, 0, 20, 20]


def test_broken_pictures_and_limits_keep_labels_beside_their_pictures(root: Path) -> None:
    whole = load(root)
    (root / "train2017" / f"{2:012}.jpg").write_text("no picture")
    data = load(root)
    assert len(data.full) == 19
    assert data.full.labels.tolist()[2:] == whole.full.labels.tolist()[3:]
    assert torch.equal(data.full.semantic[2], whole.full.semantic[3])
    assert data.full.names[2] == f"train2017/{3:012}.jpg"


def test_a_limit_is_in_the_name_and_keeps_labels_beside_their_pictures(root: Path) -> None:
    whole, limited = load(root), load(root, limit=12)
    assert limited.info.name == "coco-COCO-limit12"
    assert len(limited.full) == 12
    for i, name in enumerate(limited.full.names):
        j = whole.full.names.index(name)
        assert limited.full.labels[i] == whole.full.labels[j]
        assert torch.equal(limited.full.boxes[i].xyxy, whole.full.boxes[j].xyxy)


def test_the_digest_is_of_boxes_and_drawings_too(root: Path) -> None:
    digests = {load(root).full.digest}
    for key, value in (("bbox", [0, 0, 41, 30]), ("segmentation", rectangle(0, 0, 39, 30))):
        made = notes(range(20))
        made["annotations"][0][key] = value
        write(root, "train", made)
        digests.add(load(root).full.digest)
    assert len(digests) == 3


# -------------------------------------------------------------------------------------- complaints
def broken(*path: str | int, value: object = None) -> Notes:
    """The training notes with one entry replaced, or removed where there is no value."""
    made = deepcopy(notes(range(20)))
    *way, last = path
    spot: Any = made
    for step in way:
        spot = spot[step]
    if value is None:
        del spot[last]
    else:
        spot[last] = value
    return made


@pytest.mark.parametrize(
    ("made", "fault"),
    [
        (broken("images", 0, "width"), r"width of picture 0+\.jpg is missing"),
        (broken("images", 0, "height", value="60"), r"height of picture 0+\.jpg is '60'"),
        (broken("images", 0, "height", value=0), r"picture 0+\.jpg is 80 x 0 px"),
        (broken("images", 0, "file_name"), "file_name of picture 100 is missing"),
        (
            broken("annotations", 0, "bbox", value=[41, 0, 41, 30]),
            r"bbox \(41, 0, 41, 30\) of object 1 in 0+\.jpg is not in the picture of 80 x 60 px",
        ),
        (broken("annotations", 0, "bbox", value=[-2, 0, 4, 3]), "is not in the picture"),
        (broken("annotations", 0, "bbox", value=[2, 0, -1, 3]), "is not in the picture"),
        (broken("annotations", 0, "bbox", value=[2, 0, 4]), r"is \[2, 0, 4\], not x, y, width"),
        (broken("annotations", 0, "bbox"), r"bbox of object 1 in 0+\.jpg is missing"),
        (broken("annotations", 0, "category_id", value=4), "has the unknown category 4"),
        (broken("annotations", 0, "category_id"), "has the unknown category None"),
        (broken("annotations", 0, "image_id", value=9), "of picture 9, which is not listed"),
        (broken("categories"), "the lists images, annotations, categories are not all there"),
        (broken("categories", 0, "name"), "name of a category is missing"),
    ],
)
def test_wrong_notes_are_named(root: Path, made: Notes, fault: str) -> None:
    write(root, "train", made)
    with pytest.raises(BenchError, match=rf"instances_train2017\.json: .*{fault}") as error:
        load(root)
    assert "\n" not in str(error.value)


def test_a_category_of_val_alone_is_named(root: Path) -> None:
    made = notes(range(20, 26))
    made["categories"].append({"id": 91, "name": "tree"})
    made["annotations"][0]["category_id"] = 91
    write(root, "val", made)
    with pytest.raises(BenchError, match=r"instances_val2017\.json: .* unknown category 91"):
        load(root)


def test_missing_files_are_named(root: Path) -> None:
    picture = root / "train2017" / f"{3:012}.jpg"
    picture.unlink()
    with pytest.raises(BenchError, match=rf"{picture}: the picture is missing"):
        load(root)
    path_of(root, "train").write_text("{")
    with pytest.raises(BenchError, match=r"instances_train2017\.json: .* not JSON"):
        load(root)
    path_of(root, "train").unlink()
    with pytest.raises(BenchError, match=r"there is no .*instances_train\*\.json"):
        load(root)
    (root / "annotations" / "instances_train2014.json").write_text("{}")
    (root / "annotations" / "instances_train2017.json").write_text("{}")
    with pytest.raises(
        BenchError, match=r"instances_train2014\.json and instances_train2017\.json"
    ):
        load(root)
    with pytest.raises(BenchError, match="coco needs a folder"):
        catalog.load("coco")


@pytest.mark.parametrize(
    "drawn", [{"size": [60, 79], "counts": [4740]}, {"size": [60, 80]}, [[1, 2]], "circle"]
)
def test_a_wrong_drawing_is_named(root: Path, drawn: object) -> None:
    write(root, "train", broken("annotations", 0, "segmentation", value=drawn))
    with pytest.raises(BenchError, match=rf"train2017/{0:012}\.jpg: .*segmentation"):
        load(root).full.semantic[0]
