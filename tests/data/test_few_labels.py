"""Which labels may be used, and the order in which pictures come."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from bench.conformance import toy_split
from bench.data.class_folders import load_class_folders
from bench.data.dataset import DataOptions, Split, hold_out
from bench.data.few_labels import few_labels
from bench.data.order import endless
from bench.errors import BenchError


@pytest.mark.parametrize("count", [1, 3, 16])
def test_so_many_labels_of_each_class(count: int) -> None:
    split = toy_split()
    chosen = few_labels(split, count, draw=1)
    assert split.labels is not None
    assert split.labels[chosen].bincount().tolist() == [count] * 4
    assert chosen.unique().tolist() == chosen.tolist()  # sorted, each once
    assert torch.equal(chosen, few_labels(split, count, draw=1))
    if count < 16:
        assert not torch.equal(chosen, few_labels(split, count, draw=2))


def test_a_share_of_the_labels_has_each_class_in_its_own() -> None:
    split = toy_split()
    labels = torch.tensor([0] * 40 + [1] * 20 + [2] * 3 + [3])
    chosen = few_labels(replace(split, labels=labels), 0.25)
    assert labels[chosen].bincount().tolist() == pytest.approx([10, 5, 1, 1], abs=1)
    assert len(chosen) == 16


def listed(tmp_path: Path, split: Split, *lines: str) -> list[int]:
    path = tmp_path / "list.txt"
    path.write_text("\n".join(lines))
    return few_labels(split, str(path)).tolist()


def test_a_list_of_positions(tmp_path: Path) -> None:
    assert listed(tmp_path, toy_split(), "7", "0", "", "7", " 1 ", "2") == [0, 1, 2, 7]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["0", "1", "2", "3", "64"], "below the 64 pictures"),
        (["0", "1", "2", "3", "-1"], "'-1' is no position .* no file names"),
        (["1.5"], "'1.5' is no position"),
        (["a.jpg"], "'a.jpg' is no position"),
        (["0", "1", "3"], "lists no picture of class 2"),
        ([], "lists no picture of class 0"),
    ],
)
def test_a_list_that_does_not_fit(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(BenchError, match=rf"list\.txt.*{message}"):
        listed(tmp_path, toy_split(), *lines)


def named() -> Split:
    """The toy pictures as files of four class folders; each folder has a cover.jpg."""
    number = torch.arange(64).div(4, rounding_mode="floor").tolist()
    names = [f"train/{'abcd'[i % 4]}/{'abcd'[i % 4]}_{number[i]}.JPEG" for i in range(64)]
    names[-4:] = [f"train/{c}/cover.jpg" for c in "abcd"]
    return replace(toy_split(), names=names)


def test_a_list_of_file_names(tmp_path: Path) -> None:
    lines = ["b_0.JPEG", "a_1.JPEG", "c_0.JPEG", "d/d_3.JPEG", "train/a/a_0.JPEG", "a_1.JPEG"]
    assert listed(tmp_path, named(), *lines) == [0, 1, 2, 4, 15]
    assert listed(tmp_path, named(), *(f"{c}/cover.jpg" for c in "abcd")) == [60, 61, 62, 63]
    with pytest.raises(BenchError, match=r"'cover.jpg' may be train/a/cover.jpg or train/b/cover"):
        listed(tmp_path, named(), "cover.jpg")


def test_names_are_kept_where_pictures_are_held_out_and_lists_of_all_pictures_fit(
    tmp_path: Path,
) -> None:
    train, val = hold_out(named())
    assert train.names is not None
    assert val.names is not None
    full = named().names
    assert full is not None
    assert sorted([*train.names, *val.names]) == sorted(full)
    assert train.labels is not None
    assert [name[6] for name in train.names] == ["abcd"[i] for i in train.labels]
    # The lines of val's pictures are passed over.
    assert listed(tmp_path, train, *full) == list(range(len(train)))


def test_a_list_of_other_data_is_refused(tmp_path: Path) -> None:
    known = ["a_1.JPEG", "b_1.JPEG", "c_1.JPEG", "d_1.JPEG"]
    with pytest.raises(BenchError, match=r"5 of 9 names, such as 'e_0.JPEG', .* other data"):
        listed(tmp_path, named(), *known, *(f"e_{i}.JPEG" for i in range(5)))


@pytest.mark.parametrize("in_memory", [True, False])
def test_pictures_in_class_folders_have_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: bool
) -> None:
    if not in_memory:
        monkeypatch.setattr("bench.data.stored.IN_MEMORY", 0)
    root = tmp_path / "pictures"
    for number in range(24):
        folder = root / "train" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (10 * number, 0, 0)).save(folder / f"{number}.png")
    (root / "train" / "a" / "0.png").write_bytes(b"broken")
    data = load_class_folders(root, "files", DataOptions(broken=1))
    for split in (data.full, data.train, data.val, data.test):
        assert split.names is not None
        assert split.labels is not None
        for index, pixels in split.images.stream([torch.arange(len(split))]):
            for position, picture in zip(index.tolist(), pixels, strict=True):
                name = Path(split.names[position])
                assert name.parent.name == "ab"[int(split.labels[position])]
                assert int(picture[0, 0, 0]) == 10 * int(name.stem)


def test_too_few_or_too_many_labels_are_told_in_one_line() -> None:
    with pytest.raises(BenchError, match="below one for each"):
        few_labels(toy_split(), 0.02)
    with pytest.raises(BenchError, match="16 pictures of class 0"):
        few_labels(toy_split(), 17)
    with pytest.raises(BenchError, match="cannot be read"):
        few_labels(toy_split(), "no/such/list.txt")


@pytest.mark.parametrize(("count", "batch"), [(10, 4), (4, 10), (7, 7)])
def test_the_endless_order_shows_all_before_any_again(count: int, batch: int) -> None:
    drawn = torch.cat([endless(count, batch, step, 0, "x") for step in range(7)])
    assert len(drawn) == 7 * batch
    for start in range(0, len(drawn) - count + 1, count):
        assert sorted(drawn[start : start + count].tolist()) == list(range(count))
    assert not torch.equal(drawn[:count], torch.cat([endless(count, count, 0, 1, "x")]))
