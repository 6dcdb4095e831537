"""The PASCAL VOC reader: labels of every kind, against torchvision's reader, and its complaints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import VOCDetection, VOCSegmentation
from torchvision.ops import box_iou, masks_to_boxes

from bench.data import archive, catalog, stored
from bench.data.dataset import DataOptions, DataSet
from bench.data.folder import FolderImages
from bench.data.masks import MaskFiles
from bench.data.voc import CLASSES
from bench.errors import BenchError

WIDTH, HEIGHT = 80, 60  # of every picture of the tiny kit
CAT, DOG, CAR, PERSON = (CLASSES.index(name) for name in ("cat", "dog", "car", "person"))
# name, difficult, (xmin, ymin, xmax, ymax) counted from 1, the last pixel included
Thing = tuple[str, int, tuple[int, int, int, int]]
THINGS: list[list[Thing]] = [
    [("cat", 0, (1, 1, 40, 30)), ("dog", 0, (41, 11, 80, 60))],
    [("cat", 1, (11, 11, 50, 50)), ("person", 1, (60, 1, 70, 60)), ("person", 0, (72, 5, 78, 9))],
    [("car", 0, (1, 1, 80, 60))],
]


def picture(number: int) -> list[Thing]:
    return THINGS[number % len(THINGS)]


def annotation(things: list[Thing], size: str | None = None) -> str:
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>" if size is None else size
    objects = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>"
        + "".join(
            f"<{tag}>{at}</{tag}>"
            for tag, at in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        )
        + "</bndbox></object>"
        for name, difficult, box in things
    )
    return f"<annotation>{size}{objects}</annotation>"


def masks(things: list[Thing]) -> tuple[np.ndarray, np.ndarray]:
    """(semantic, instances); later objects hide earlier ones; a void row at the bottom."""
    semantic, instances = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    for number, (name, _, (x0, y0, x1, y1)) in enumerate(things, 1):
        semantic[y0 - 1 : y1, x0 - 1 : x1] = CLASSES.index(name) + 1
        instances[y0 - 1 : y1, x0 - 1 : x1] = number
    semantic[-1], instances[-1] = 255, 255
    return semantic, instances


def save_mask(path: Path, mask: np.ndarray) -> None:
    image = Image.fromarray(mask, "L").convert("P")
    image.putdata(mask.flatten().tolist())
    image.save(path)


def write_kit(root: Path, lists: dict[str, range]) -> None:
    for part in ("JPEGImages", "Annotations", "SegmentationClass", "SegmentationObject"):
        (root / part).mkdir(parents=True)
    for kind in ("Main", "Segmentation"):
        (root / "ImageSets" / kind).mkdir(parents=True)
        for part, numbers in lists.items():
            names = "".join(f"{number:06}\n" for number in numbers)
            (root / "ImageSets" / kind / f"{part}.txt").write_text(names)
    for number in range(max(numbers.stop for numbers in lists.values())):
        name, things = f"{number:06}", picture(number)
        pixels = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.jpg")
        (root / "Annotations" / f"{name}.xml").write_text(annotation(things))
        for folder, mask in zip(("Class", "Object"), masks(things), strict=True):
            save_mask(root / f"Segmentation{folder}" / f"{name}.png", mask)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    root = tmp_path / "VOCdevkit" / "VOC2007"
    write_kit(root, {"train": range(30), "val": range(30, 36)})
    return root


def load(kit: Path, **options: int) -> DataSet:
    return catalog.load(f"voc:{kit}", DataOptions(**options))


# ------------------------------------------------------------------------------------------ labels
def test_pictures_and_boxes_are_those_that_torchvision_reads(kit: Path) -> None:
    data = load(kit, size=40)
    truth = VOCDetection(kit.parent.parent, year="2007", image_set="train")
    assert data.info.name == "voc-VOC2007"
    assert data.info.classes == CLASSES
    assert data.info.has == {"color", "labels", "multilabel", "boxes", "masks"}
    assert len(truth) == len(data.full) == 30
    _, pixels = next(iter(data.full.images.stream([torch.arange(30)])))
    for i, (image, target) in enumerate(truth):
        resized = image.resize((40, 40), Image.Resampling.BILINEAR)
        assert np.array_equal(pixels[i].numpy().transpose(1, 2, 0), np.asarray(resized))
        things = target["annotation"]["object"]
        boxes = data.full.boxes[i]
        assert [CLASSES[k] for k in boxes.label.tolist()] == [thing["name"] for thing in things]
        assert boxes.difficult.tolist() == [thing["difficult"] == "1" for thing in things]
        corners = torch.tensor(
            [
                [float(thing["bndbox"][k]) for k in ("xmin", "ymin", "xmax", "ymax")]
                for thing in things
            ]
        )
        corners[:, :2] -= 1
        assert torch.allclose(
            boxes.xyxy, corners * torch.tensor([40 / WIDTH, 40 / HEIGHT, 40 / WIDTH, 40 / HEIGHT])
        )
    assert data.full.images.aspect[0].item() == pytest.approx(WIDTH / HEIGHT)


def test_masks_are_those_that_torchvision_reads(kit: Path) -> None:
    data = load(kit)
    truth = VOCSegmentation(kit.parent.parent, year="2007", image_set="val")
    for i, (_, mask) in enumerate(truth):
        assert np.array_equal(data.test.semantic[i].numpy(), np.asarray(mask))
        assert np.array_equal(data.test.instances[i].numpy(), masks(picture(i))[1])


def test_boxes_enclose_the_objects_of_the_masks(kit: Path) -> None:
    """In squashed pixels; what begins at the kit's pixel 1 begins at 0 here."""
    data = load(kit, size=HEIGHT)
    for i in (0, 2):  # pictures whose objects do not reach into the void row, but for its height
        instances = data.full.instances[i]
        numbers = torch.arange(1, len(data.full.boxes[i].label) + 1)
        found = masks_to_boxes(instances == numbers[:, None, None])
        found[:, 2:] += 1
        found[:, 0::2] *= HEIGHT / WIDTH
        found[:, 3] += data.full.boxes[i].xyxy[:, 3] == HEIGHT  # the void row
        assert torch.allclose(found, data.full.boxes[i].xyxy)


def test_main_label_is_the_class_of_the_largest_object(kit: Path) -> None:
    assert load(kit).full.labels[:3].tolist() == [DOG, CAT, CAR]


def test_multilabel_marks_classes_with_only_difficult_objects(kit: Path) -> None:
    rows = load(kit).full.multilabel[:3]
    expected = torch.zeros(3, 20, dtype=torch.int8)
    expected[0, [CAT, DOG]] = 1
    expected[1, CAT] = -1
    expected[1, PERSON] = 1
    expected[2, CAR] = 1
    assert torch.equal(rows, expected)


def test_a_picture_without_mask_files_is_all_void(kit: Path) -> None:
    (kit / "SegmentationClass" / "000004.png").unlink()
    data = load(kit)
    assert data.full.semantic[4].shape == (HEIGHT, WIDTH)
    assert (data.full.semantic[4] == 255).all()
    assert (data.full.instances[4] != 255).any()


def test_gaps_in_object_numbers_are_closed_in_order(kit: Path) -> None:
    path = kit / "SegmentationObject" / "000000.png"
    _, mask = masks(picture(0))
    save_mask(path, np.where(mask == 1, 4, np.where(mask == 2, 9, mask)).astype(np.uint8))
    assert np.array_equal(load(kit).full.instances[0].numpy(), mask)


# ------------------------------------------------------------------------------------------ splits
def test_validation_is_held_out_of_train_with_every_label(kit: Path) -> None:
    data = load(kit)
    assert (len(data.full), len(data.train), len(data.val), len(data.test)) == (30, 27, 3, 6)
    again = load(kit)
    assert data.info == again.info
    assert (data.train.digest, data.val.digest) == (again.train.digest, again.val.digest)
    position = {bytes(row): i for i, row in enumerate(data.full.images.pixels.numpy())}
    for split in (data.train, data.val):
        for i, row in enumerate(split.images.pixels.numpy()):
            j = position.pop(bytes(row))
            assert split.labels[i] == data.full.labels[j]
            assert torch.equal(split.multilabel[i], data.full.multilabel[j])
            assert torch.equal(split.boxes[i].xyxy, data.full.boxes[j].xyxy)
            assert torch.equal(split.semantic[i], data.full.semantic[j])
            assert torch.equal(split.instances[i], data.full.instances[j])
    assert not position


def test_masks_stay_unread_when_pictures_are_taken(
    kit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MaskFiles, "__getitem__", None)
    data = load(kit)
    taken = data.train.take(torch.tensor([5, 3])).take(torch.tensor([1]))
    assert isinstance(taken.semantic, MaskFiles)
    assert taken.semantic.paths == [data.train.semantic.paths[3]]


def test_official_test_is_the_test_where_it_is_annotated(tmp_path: Path) -> None:
    root = tmp_path / "VOC2007"
    lists = {"train": range(12), "val": range(12, 20), "trainval": range(20), "test": range(20, 25)}
    write_kit(root, lists)
    assert [len(part) for part in (load(root).full, load(root).test)] == [20, 5]
    for number in lists["test"]:
        (root / "Annotations" / f"{number:06}.xml").unlink()
    assert [len(part) for part in (load(root).full, load(root).test)] == [12, 8]


def test_classes_are_those_with_lists_of_their_own(tmp_path: Path) -> None:
    write_kit(tmp_path, {"train": range(12), "val": range(12, 15)})
    for name in ("person", "dog", "cat", "car"):
        (tmp_path / "ImageSets" / "Main" / f"{name}_train.txt").write_text("")
    for path in tmp_path.glob("SegmentationClass/*"):  # numbered for the twenty classes
        path.unlink()
    data = load(tmp_path)
    assert data.info.classes == ("car", "cat", "dog", "person")
    assert data.full.labels[:3].tolist() == [2, 1, 0]


def test_limit_and_broken_pictures_keep_labels_beside_their_pictures(kit: Path) -> None:
    whole = load(kit)
    (kit / "JPEGImages" / "000001.jpg").write_text("no picture")
    options = DataOptions()
    data = catalog.load(f"voc:{kit}", options)
    assert options.log == ["left out a broken picture: JPEGImages/000001.jpg (not a picture)"]
    assert len(data.full) == 29
    assert torch.equal(data.full.labels[1:], whole.full.labels[2:])
    assert torch.equal(data.full.semantic[1], whole.full.semantic[2])
    limited = load(kit, limit=20)
    assert limited.info.name == "voc-VOC2007-limit20"
    assert limited.full.labels.bincount()[[CAT, DOG, CAR]].tolist() == pytest.approx(
        [7, 7, 7], abs=1
    )


def test_lazy_pictures_are_the_same(kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = load(kit)
    monkeypatch.setattr(stored, "IN_MEMORY", 0)
    lazy = load(kit)
    assert isinstance(lazy.full.images, FolderImages)
    _, pixels = next(iter(lazy.full.images.stream([torch.arange(30)])))
    assert torch.equal(pixels, decoded.full.images.pixels)


def test_digest_is_also_of_boxes_and_masks(kit: Path) -> None:
    before = load(kit).full.digest
    (kit / "Annotations" / "000002.xml").write_text(annotation([("car", 0, (1, 1, 80, 59))]))
    boxes = load(kit).full.digest
    (kit / "SegmentationClass" / "000004.png").unlink()
    assert len({before, boxes, load(kit).full.digest}) == 3


# -------------------------------------------------------------------------------------- complaints
@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("<annotation", "not XML"),
        (annotation(THINGS[0], size=""), "<size/width> is missing"),
        (annotation(THINGS[0], size="<size><width>wide</width></size>"), "'wide', not a number"),
        (annotation(THINGS[0], size="<size><width>0</width><height>9</height></size>"), "0 x 9"),
        (annotation([]), "no object"),
        (
            annotation([("unicorn", 0, (1, 1, 2, 2))]),
            "unknown class 'unicorn'; known are aeroplane",
        ),
        (annotation([("cat", 0, (1, 1, 81, 60))]), r"box \(1, 1, 81, 60\) is not in .* 80 x 60"),
        (annotation([("cat", 0, (-1, 1, 8, 6))]), "is not in the picture"),
        (annotation([("cat", 0, (9, 1, 8, 6))]), "is not in the picture"),
        ("<annotation><object/></annotation>", "<size/width> is missing"),
    ],
)
def test_a_wrong_annotation_is_named(kit: Path, text: str, fault: str) -> None:
    (kit / "Annotations" / "000031.xml").write_text(text)
    with pytest.raises(BenchError, match=rf"000031\.xml: .*{fault}") as error:
        load(kit)
    assert "\n" not in str(error.value)


def test_missing_files_are_named(kit: Path) -> None:
    (kit / "JPEGImages" / "000003.jpg").unlink()
    with pytest.raises(BenchError, match=r"000003\.jpg: the picture is missing"):
        load(kit)
    (kit / "Annotations" / "000003.xml").unlink()
    with pytest.raises(BenchError, match=r"000003\.xml: the annotation is missing"):
        load(kit)
    (kit / "ImageSets" / "Main" / "train.txt").unlink()
    with pytest.raises(BenchError, match=r"train\.txt: the list is missing or empty"):
        load(kit)
    with pytest.raises(BenchError, match=r"did you mean .*VOC2007"):
        load(kit.parent)


def test_a_mask_of_another_size_is_named(kit: Path) -> None:
    save_mask(kit / "SegmentationObject" / "000033.png", np.zeros((60, 79), np.uint8))
    with pytest.raises(BenchError, match=r"000033\.png: the mask is 79 x 60 px, .* 80 x 60 px"):
        load(kit)


@pytest.mark.parametrize(
    ("folder", "value", "fault"),
    [("SegmentationClass", 21, "class number 21, .* 20"), ("SegmentationObject", 7, "2 objects")],
)
def test_unknown_numbers_in_masks_are_named(kit: Path, folder: str, value: int, fault: str) -> None:
    mask = np.ones((HEIGHT, WIDTH), np.uint8)
    mask[:9] = value
    save_mask(kit / folder / "000002.png", mask)
    with pytest.raises(BenchError, match=rf"000002\.png: the mask holds .*{fault}"):
        getattr(load(kit).full, "semantic" if "Class" in folder else "instances")[2]


def test_a_damaged_or_coloured_mask_is_named(kit: Path) -> None:
    Image.new("RGB", (WIDTH, HEIGHT)).save(kit / "SegmentationClass" / "000002.png")
    path = kit / "SegmentationClass" / "000005.png"
    path.write_bytes(path.read_bytes()[:-40])
    semantic = load(kit).full.semantic
    with pytest.raises(BenchError, match=r"000002\.png: .* mode RGB"):
        semantic[2]
    with pytest.raises(BenchError, match=r"000005\.png: the mask cannot be read"):
        semantic[5]


# ------------------------------------------------------------------------------- the real pictures
@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "pictures", "objects"), [("coco_voc20", 274, 1443), ("pennfudan", 170, 423)]
)
def test_real_kits(name: str, pictures: int, objects: int) -> None:
    """Counts as in the archive's own table; each mask lies in the box of its object."""
    try:
        archive.find(f"{name.replace('_', '-')}.tar.xz")
    except BenchError as error:
        pytest.skip(str(error))
    data = catalog.load(name)
    splits = (data.full, data.test)
    assert sum(len(split) for split in splits) == pictures
    assert sum(len(found.label) for split in splits for found in split.boxes) == objects
    overlaps = []
    for split in splits:
        for boxes, mask in zip(split.boxes, split.instances, strict=True):
            numbers = [n for n in np.unique(mask).tolist() if n not in (0, 255)]
            if not numbers:
                continue
            extent = masks_to_boxes(mask == torch.tensor(numbers)[:, None, None])
            extent[:, 2:] += 1
            scale = torch.tensor([data.info.size / side for side in mask.shape[::-1]]).repeat(2)
            own = boxes.xyxy[torch.tensor(numbers) - 1]
            overlaps += box_iou(extent * scale, own).diag().tolist()
    # COCO's boxes are of whole objects, its masks without what lies in front.
    assert np.median(overlaps) > 0.95
    assert min(overlaps) > 0.4


def test_without_a_path_it_is_in_the_folder_of_data_sets(tmp_path):
    write_kit(tmp_path / "VOCdevkit" / "VOC2007", {"train": range(30), "val": range(30, 36)})
    data = catalog.load("voc", DataOptions(root=tmp_path, size=32))
    assert data.info.name == "voc-VOC2007"
    with pytest.raises(BenchError, match="needs a folder"):
        catalog.load("voc", DataOptions())
