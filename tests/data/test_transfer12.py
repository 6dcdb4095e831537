"""The sets of SimCLR's transfer table on tiny made-up copies, against torchvision's readers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision import datasets
from torchvision.datasets import VisionDataset

from bench.data import catalog
from bench.data.dataset import DataOptions, DataSet, Split
from bench.data.folder import FolderImages
from bench.errors import BenchError

SIDE = 16
Truth = list[tuple[VisionDataset, str]]  # torchvision's sets, and the split that each is of


@pytest.fixture(autouse=True)
def _places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BENCH_DATA", raising=False)


def draw(path: Path) -> None:
    """A picture that its path tells from all others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list(str(path).encode()))
    Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(path, quality=95)


def write(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def food101(root: Path) -> None:
    folder = root / "food-101"
    for part, count in (("train", 8), ("test", 4)):
        # The file's order of classes is not the alphabet's.
        listed = {c: [f"{c}/{part}{i}" for i in range(count)] for c in ("waffles", "baklava")}
        (folder / "meta").mkdir(parents=True, exist_ok=True)
        (folder / "meta" / f"{part}.json").write_text(json.dumps(listed))
        for item in (item for items in listed.values() for item in items):
            draw(folder / "images" / f"{item}.jpg")


def cars(root: Path) -> None:
    folder = root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    names = np.array(["Acura RL", "BMW M3", "Smart fortwo"], dtype=object)
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": names})
    places = {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}
    for part, count in (("train", 15), ("test", 6)):
        rows = np.zeros(count, dtype=[("class", object), ("fname", object)])
        for i in range(count):
            rows[i] = (3 - i % 3, f"{i:05}.jpg")
            draw(folder / f"cars_{part}" / f"{i:05}.jpg")
        savemat(folder / places[part], {"annotations": rows})


def aircraft(root: Path) -> None:
    folder = root / "fgvc-aircraft-2013b" / "data"
    classes = ["707-320", "Boeing 717", "F-16A/B"]  # blanks and slashes belong to names
    write(folder / "variants.txt", classes)
    for number, (part, count) in enumerate((("train", 9), ("val", 6), ("test", 6))):
        items = [(f"{number}{i:04}", classes[2 - i % 3]) for i in range(count)]
        write(folder / f"images_variant_{part}.txt", (f"{a} {b}" for a, b in items))
        for item, _ in items:
            draw(folder / "images" / f"{item}.jpg")
    both = [folder / f"images_variant_{part}.txt" for part in ("train", "val")]
    (folder / "images_variant_trainval.txt").write_text("".join(p.read_text() for p in both))


def dtd(root: Path) -> None:
    folder = root / "dtd" / "dtd"
    for part, count in (("train", 5), ("val", 4), ("test", 3)):
        items = [f"{c}/{c}_{part}{i}.jpg" for i in range(count) for c in ("woven", "banded")]
        write(folder / "labels" / f"{part}1.txt", items)
        for item in items:
            draw(folder / "images" / item)


def pets(root: Path) -> None:
    folder = root / "oxford-iiit-pet"
    for part, count in (("trainval", 8), ("test", 4)):
        rows = [
            f"{name}_{part}{i} {label} 1 1"
            for label, name in enumerate(("Abyssinian", "american_bulldog", "Bengal"), 1)
            for i in range(count)
        ]
        write(folder / "annotations" / f"{part}.txt", rows)
        for row in rows:
            draw(folder / "images" / f"{row.split()[0]}.jpg")


def flowers102(root: Path) -> None:
    folder = root / "flowers-102"
    labels = np.random.default_rng(0).permutation(np.arange(60) % 4 * 30 + 1)
    order = np.random.default_rng(1).permutation(60) + 1
    for number in order:
        draw(folder / "jpg" / f"image_{number:05}.jpg")
    savemat(folder / "imagelabels.mat", {"labels": labels[None]})
    parts = {"trnid": order[None, :20], "valid": order[None, 20:40], "tstid": order[None, 40:]}
    savemat(folder / "setid.mat", parts)


def sun397(root: Path) -> None:
    folder = root / "SUN397"
    classes = ["/a/abbey", "/c/church/indoor", "/c/church/outdoor"]
    write(folder / "ClassName.txt", classes)
    for part, count in (("Training", 6), ("Testing", 4)):
        items = [f"{c}/sun_{part.lower()}{i}.jpg" for i in range(count) for c in classes]
        write(folder / f"{part}_01.txt", items)
        for item in items:
            draw(folder / item[1:])


def caltech101(root: Path) -> None:
    for name, count in (("ant", 35), ("BACKGROUND_Google", 40), ("wrench", 33)):
        for i in range(1, count + 1):
            draw(root / "caltech101" / "101_ObjectCategories" / name / f"image_{i:04}.jpg")


def birdsnap(root: Path) -> None:
    for part, count in (("train", 8), ("test", 4)):
        for name in ("Acadian_Flycatcher", "Yellow_Warbler"):
            for i in range(count):
                draw(root / "birdsnap" / part / name / f"{i}.jpg")


def of_train_and_test(kind: Any, train: str = "train") -> Callable[[Path], Truth]:
    return lambda root: [(kind(root, split=train), "full"), (kind(root, split="test"), "test")]


def with_val(kind: Any) -> Callable[[Path], Truth]:
    parts = ("train", "val", "test")
    return lambda root: [(kind(root, split=part), part) for part in parts]


MADE: dict[str, tuple[Callable[[Path], None], Callable[[Path], Truth] | None]] = {
    "food101": (food101, of_train_and_test(datasets.Food101)),
    "cars": (cars, of_train_and_test(datasets.StanfordCars)),
    "aircraft": (aircraft, with_val(datasets.FGVCAircraft)),
    "dtd": (dtd, with_val(datasets.DTD)),
    "pets": (pets, of_train_and_test(datasets.OxfordIIITPet, "trainval")),
    "flowers102": (flowers102, with_val(datasets.Flowers102)),
    "sun397": (sun397, None),
    "caltech101": (caltech101, None),
    "birdsnap": (birdsnap, None),
}


def load(name: str, root: Path, **options: int) -> DataSet:
    return catalog.load(name, DataOptions(root=root, size=SIDE, **options))


def by_content(split: Split) -> dict[bytes, int]:
    """The label of each picture, by its pixels."""
    assert split.labels is not None
    ((_, pixels),) = split.images.stream([torch.arange(len(split))])
    pairs = zip(pixels.numpy(), split.labels.tolist(), strict=True)
    return {picture.tobytes(): label for picture, label in pairs}


def bytes_of(picture: Any) -> bytes:
    return np.asarray(picture).transpose(2, 0, 1).tobytes()


@pytest.mark.parametrize("name", [name for name, (_, truth) in MADE.items() if truth])
def test_pictures_labels_and_classes_are_torchvisions(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, truth = MADE[name]
    assert truth is not None
    make(tmp_path)
    monkeypatch.setattr(datasets.Flowers102, "_check_integrity", lambda self: True)
    data = load(name, tmp_path)
    for expected, split in truth(tmp_path):
        found = by_content(getattr(data, split))
        assert found == {bytes_of(picture): label for picture, label in expected}
        assert len(found) == len(expected)
    names = [c.lower().replace("_", " ") for c in data.info.classes]
    assert names == [c.lower() for c in expected.classes]
    assert data.info.name == name
    assert data.info.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize("name", sorted(MADE))
def test_parts_are_apart_and_hold_every_class(name: str, tmp_path: Path) -> None:
    MADE[name][0](tmp_path)
    data = load(name, tmp_path)
    train, val, test = (by_content(split) for split in (data.train, data.val, data.test))
    assert not (train.keys() & val.keys() or train.keys() & test.keys() or val.keys() & test.keys())
    assert train | val == by_content(data.full)
    assert {*train.values()} == {*val.values()} | {*train.values()} == {*test.values()}
    assert data.info.n_train == len(train) + len(val)


def test_sun397_is_parted_by_the_authors_lists(tmp_path: Path) -> None:
    sun397(tmp_path)
    data = load("sun397", tmp_path)
    assert data.info.classes == ("abbey", "church/indoor", "church/outdoor")
    truth = {bytes_of(picture): label for picture, label in datasets.SUN397(tmp_path)}
    assert by_content(data.full) | by_content(data.test) == truth
    assert (len(data.full), len(data.test)) == (18, 12)


def test_caltech101_draws_30_of_each_class_and_the_same_every_time(tmp_path: Path) -> None:
    caltech101(tmp_path)
    data = load("caltech101", tmp_path)
    assert data.info.classes == ("BACKGROUND_Google", "ant", "wrench")
    assert data.full.labels.bincount().tolist() == [30, 30, 30]
    assert data.test.labels.bincount().tolist() == [10, 5, 3]
    assert load("caltech101", tmp_path).info == data.info
    truth = datasets.Caltech101(tmp_path)  # leaves the background out
    assert len(truth) == 35 + 33
    own = by_content(data.full) | by_content(data.test)
    for picture, label in truth:
        assert data.info.classes[own[bytes_of(picture)]] == truth.categories[label]
    (tmp_path / "caltech101" / "101_ObjectCategories" / "few").mkdir()
    draw(tmp_path / "caltech101" / "101_ObjectCategories" / "few" / "image_0001.jpg")
    with pytest.raises(BenchError, match="few has no more than 30 pictures"):
        load("caltech101", tmp_path)


def test_pictures_are_stored_squashed_at_256_px_beside_their_aspect(tmp_path: Path) -> None:
    food101(tmp_path)
    path = tmp_path / "food-101" / "images" / "waffles" / "train0.jpg"
    Image.new("RGB", (60, 40), "red").save(path)
    data = catalog.load("food101", DataOptions(root=tmp_path))
    assert data.info.size == 256
    assert data.full.images.aspect[0] == 1.5


def test_large_sets_are_decoded_as_they_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dtd(tmp_path)
    decoded = load("dtd", tmp_path)
    monkeypatch.setattr("bench.data.stored.IN_MEMORY", 0)
    lazy = load("dtd", tmp_path)
    assert isinstance(lazy.val.images, FolderImages)
    for split in ("train", "val", "test"):
        assert by_content(getattr(lazy, split)) == by_content(getattr(decoded, split))


def test_a_limit_parts_what_is_left_anew(tmp_path: Path) -> None:
    dtd(tmp_path)
    data = load("dtd", tmp_path, limit=10)
    assert data.info.name == "dtd-limit10"
    assert data.full.labels.tolist().count(0) == 5
    assert (len(data.train), len(data.val), len(data.test)) == (9, 1, 6)


def test_a_broken_picture_is_left_out_of_its_own_part(tmp_path: Path) -> None:
    dtd(tmp_path)
    whole = load("dtd", tmp_path)
    (tmp_path / "dtd" / "dtd" / "images" / "woven" / "woven_val1.jpg").write_bytes(b"")
    data = load("dtd", tmp_path)
    assert (len(data.train), len(data.val)) == (10, 7)
    assert by_content(data.train) == by_content(whole.train)
    assert by_content(data.val).items() < by_content(whole.val).items()


@pytest.mark.parametrize("name", sorted(MADE))
def test_an_absent_set_is_one_line_and_nothing_is_downloaded(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("urllib.request.urlopen", None)
    with pytest.raises(BenchError, match=r"there is no .*nothing is downloaded.*--data-root") as e:
        load(name, tmp_path)
    assert "\n" not in str(e.value)
    assert str(tmp_path) in str(e.value)
    with pytest.raises(BenchError, match="takes no argument"):
        catalog.load(f"{name}:x")


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("food101", "food-101/meta/train.json", "{", "train.json is damaged"),
        ("food101", "food-101/meta/test.json", '{"pie": ["pie/1"]}', "pie/1.jpg as class -1"),
        ("food101", "food-101/meta/train.json", '{"pie": ["pie/1"]}', "lists images/pie/1.jpg"),
        ("cars", "stanford_cars/devkit/cars_meta.mat", "x", "cars_meta.mat is damaged"),
        ("cars", "stanford_cars/devkit/cars_meta.mat", "", "cars_meta.mat is damaged"),
        ("flowers102", "flowers-102/setid.mat", "x" * 200, "setid.mat is damaged"),
        ("aircraft", "fgvc-aircraft-2013b/data/variants.txt", "A380\n", "from 0, but has 1"),
        ("pets", "oxford-iiit-pet/annotations/test.txt", "one two\n", "test.txt is damaged"),
        ("dtd", "dtd/dtd/labels/test1.txt", "woven/none.jpg\n", "lists images/woven/none.jpg"),
        ("sun397", "SUN397/Testing_01.txt", "/z/zoo/sun_a.jpg\n", "class -1 from 0"),
    ],
)
def test_damaged_lists_are_one_line(
    name: str, file: str, content: str, message: str, tmp_path: Path
) -> None:
    MADE[name][0](tmp_path)
    (tmp_path / file).write_text(content)
    with pytest.raises(BenchError, match=message) as error:
        load(name, tmp_path)
    assert "\n" not in str(error.value)


def test_lists_of_another_set_of_labels_are_refused(tmp_path: Path) -> None:
    flowers102(tmp_path)
    savemat(tmp_path / "flowers-102" / "imagelabels.mat", {"labels": np.ones((1, 9))})
    with pytest.raises(BenchError, match="as class -1 from 0, but has 102 classes"):
        load("flowers102", tmp_path)
