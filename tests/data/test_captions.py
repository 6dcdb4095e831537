"""Captions read from text files beside pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.data import catalog
from bench.data.dataset import DataOptions, Split
from bench.errors import BenchError


def write(root: Path, names: list[str], side: int = 16) -> None:
    """Pictures whose red is their number, each with a caption that says it."""
    for name in names:
        number = int(Path(name).stem)
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((side, side, 3), (number, 100, 200), np.uint8)
        Image.fromarray(pixels).save(path)
        path.with_suffix(".txt").write_text(f"Number {number},\n  as a colour.\n")


def fits(split: Split) -> bool:
    """Whether every picture has the caption that was written beside it."""
    assert split.text is not None
    ((_, pixels),) = split.images.stream([torch.arange(len(split))])
    reds = pixels[:, 0, 0, 0].tolist()
    return list(split.text) == [f"Number {red}, as a colour." for red in reds]


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    root = tmp_path / "pets"
    write(root, [f"train/{'cat' if i % 2 else 'dog'}/{i:03}.png" for i in range(30)])
    write(root, [f"test/{'cat' if i % 2 else 'dog'}/{i:03}.png" for i in range(100, 106)])
    return root


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    write(root, [f"{'sub/' * (i % 2)}{i:03}.png" for i in range(30)])
    return root


@pytest.mark.parametrize("limit", [None, 20])
def test_class_folders_with_captions_have_labels_and_text(classes: Path, limit: int | None) -> None:
    data = catalog.load(f"imagefolder:{classes}", DataOptions(limit=limit))
    assert {"labels", "text"} <= data.info.has
    assert len(data.full) == (limit or 30)
    assert all(fits(split) for split in (data.full, data.train, data.val, data.test))


def test_without_captions_the_set_is_what_it_was(classes: Path) -> None:
    captioned = catalog.load(f"imagefolder:{classes}").full
    for path in classes.rglob("*.txt"):
        path.unlink()
    (classes / "train" / "cat" / "notes.txt").write_text("beside no picture")
    plain = catalog.load(f"imagefolder:{classes}")
    assert "text" not in plain.info.has
    assert plain.full.text is None
    assert plain.full.digest != captioned.digest


@pytest.mark.parametrize("name", ["000.png", "sub/017.png"])
def test_the_first_picture_without_a_caption_is_named(flat: Path, name: str) -> None:
    bare = (flat / name).with_suffix(".txt")
    bare.unlink()
    with pytest.raises(BenchError) as error:
        catalog.load(f"captions:{flat}")
    assert f"{name} has no caption, as 29 of 30" in str(error.value)
    assert bare.name in str(error.value)


def test_text_files_beside_some_pictures_of_classes_are_no_captions(classes: Path) -> None:
    (classes / "train" / "cat" / "001.txt").unlink()
    assert "text" not in catalog.load(f"imagefolder:{classes}").info.has


@pytest.mark.parametrize(
    ("content", "message"),
    [(b" \n", "003.txt is empty"), (b"\xff\xfe\x00", "003.txt is not UTF-8")],
)
def test_a_caption_that_is_none_is_named(classes: Path, content: bytes, message: str) -> None:
    (classes / "train" / "cat" / "003.txt").write_bytes(content)
    with pytest.raises(BenchError, match=message):
        catalog.load(f"imagefolder:{classes}")


def test_another_caption_is_another_set_and_broken_pictures_take_theirs_along(flat: Path) -> None:
    before = catalog.load(f"captions:{flat}")
    (flat / "004.png").write_text("no picture")
    (flat / "006.txt").write_text("Another one")
    data = catalog.load(f"captions:{flat}")
    assert data.info.digest != before.info.digest
    assert data.info.n_train + len(data.test) == 29
    (flat / "006.txt").write_text("Number 6, as a colour.")
    again = catalog.load(f"captions:{flat}")
    assert again.info.digest != data.info.digest
    assert fits(again.full) and fits(again.test)


def test_a_flat_folder_is_a_set_of_captions_without_labels(flat: Path) -> None:
    options = DataOptions()
    data = catalog.load(f"captions:{flat}", options)
    assert data.info.name == "captions-photos"
    assert data.info.has == {"color", "text"}
    assert data.info.classes == () and data.full.labels is None
    assert (len(data.full), len(data.test), len(data.val)) == (24, 6, 2)
    assert "6 of 30 were set apart" in options.log[0]
    assert all(fits(split) for split in (data.full, data.train, data.val, data.test))
    assert data.info == catalog.load(f"captions:{flat}").info
    assert catalog.load(f"captions:{flat}", DataOptions(limit=12)).info.n_train == 12


def test_flat_folders_of_train_and_test_are_taken_as_such(tmp_path: Path) -> None:
    write(tmp_path, [f"train/{i:03}.png" for i in range(12)])
    write(tmp_path, [f"val/{i:03}.png" for i in range(20, 23)])
    data = catalog.load(f"captions:{tmp_path}")
    assert (len(data.full), len(data.test)) == (12, 3)
    assert fits(data.test)


def test_a_set_of_captions_needs_them(flat: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="captions:PATH"):
        catalog.load("captions")
    with pytest.raises(BenchError, match="no folder"):
        catalog.load(f"captions:{tmp_path / 'nowhere'}")
    for path in flat.rglob("*.txt"):
        path.unlink()
    with pytest.raises(BenchError, match=r"has no captions; write one to NAME\.txt"):
        catalog.load(f"captions:{flat}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BenchError, match="holds no pictures"):
        catalog.load(f"captions:{tmp_path / 'empty'}")
