"""The procedural scenes: reproducible, consistent in every kind of label, and hard enough."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from kornia.geometry.transform import warp_affine
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor
from torchvision.ops import masks_to_boxes

from bench.data.dataset import DataOptions, DataSet, digest_of
from bench.data.scenes import palette, render, store
from bench.data.scenes.camera import Camera
from bench.data.scenes.catalog import CLASSES
from bench.data.scenes.compose import PATTERN, Scenes, compose
from bench.data.scenes.frames import FrameFile, Frames
from bench.data.sets import scenes as loader
from bench.errors import BenchError

COUNT = 240  # pictures for the tests that need no more


@pytest.fixture(scope="module")
def some() -> Scenes:
    return compose("train", COUNT, store.VERSION)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_CACHE", str(tmp_path_factory.mktemp("scenes")))
        return store.pictures("train", COUNT, 32, []).tensors


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A set small enough to render for one test, and an empty cache for it."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(loader, "TRAIN", 240)
    monkeypatch.setattr(loader, "TEST", 48)
    return tmp_path


@pytest.fixture(scope="module")
def whole() -> DataSet:
    return loader.load(None, DataOptions())


# ------------------------------------------------------------------------------ reproducible
def test_pictures_do_not_depend_on_batches_or_workers(
    some: Scenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = render.render(some.take(slice(0, 50)), 32)
    monkeypatch.setattr(render, "CHUNK", 7 * 32 * 32)
    in_sevens = render.render(some.take(slice(0, 50)), 32, workers=1)
    assert torch.equal(at_once.pixels, in_sevens.pixels)
    assert torch.equal(at_once.owner, in_sevens.owner)


_DIGEST = """
from bench.data.dataset import digest_of
from bench.data.scenes import compose, render
made = render.render(compose.compose("test", 48, 1), 32)
print(digest_of(made.pixels, made.owner))
"""


def test_a_version_has_the_same_bytes_on_every_processor() -> None:
    """Torch's plain code path stands for other processors; new pixels need a new VERSION."""
    plain = {**os.environ, "ATEN_CPU_CAPABILITY": "default"}
    command = [sys.executable, "-c", _DIGEST]
    elsewhere = subprocess.run(command, env=plain, capture_output=True, text=True, check=True)
    made = render.render(compose("test", 48, 1), 32)
    here = digest_of(made.pixels, made.owner)
    assert elsewhere.stdout.strip() == here
    assert (store.VERSION, here) == (1, "d8c3d9e9fb03a03b")


def test_a_longer_split_begins_with_the_shorter_one(some: Scenes) -> None:
    longer = compose("train", 2 * COUNT, store.VERSION).take(slice(0, COUNT))
    assert torch.equal(longer.shape, some.shape)
    assert torch.equal(longer.label, some.label)
    assert torch.equal(longer.motion, some.motion)


def test_splits_and_versions_differ(some: Scenes) -> None:
    assert not torch.equal(compose("test", COUNT, store.VERSION).x, some.x)
    assert not torch.equal(compose("train", COUNT, store.VERSION + 1).x, some.x)


# -------------------------------------------------------------------------------- consistent
def test_boxes_are_tight_around_the_instances(data: dict[str, Tensor]) -> None:
    for i in range(COUNT):
        kept = data["box_label"][i] >= 0
        numbers = torch.arange(1, int(kept.sum()) + 1, dtype=torch.uint8)
        masks = data["instances"][i] == numbers[:, None, None]
        expected = masks_to_boxes(masks) + torch.tensor([0, 0, 1, 1])  # torchvision's ends are in
        assert torch.equal(data["boxes"][i][kept].float(), expected)
        assert int(data["instances"][i].max()) == len(numbers)


def test_every_kind_of_label_agrees(data: dict[str, Tensor]) -> None:
    for i in range(COUNT):
        instances, semantic = data["instances"][i], data["semantic"][i]
        kinds = data["box_label"][i][data["box_label"][i] >= 0].long()
        lookup = torch.cat([torch.zeros(1, dtype=torch.long), kinds + 1])
        assert torch.equal(lookup[instances.long()], semantic.long())
        assert kinds[0] == data["label"][i]
        assert data["multilabel"][i][data["label"][i]] == 1
        there = {int(k) - 1 for k in semantic.unique() if k > 0}
        assert there == set(data["multilabel"][i].nonzero().flatten().tolist())
        plain = kinds[~data["difficult"][i][: len(kinds)]]
        assert set(plain.tolist()) == set((data["multilabel"][i] == 1).nonzero().flatten().tolist())


def test_the_main_object_is_the_largest_and_others_are_of_other_classes(
    data: dict[str, Tensor],
) -> None:
    sizes = torch.stack([(data["instances"] == k).sum((1, 2)) for k in range(1, 5)], 1)
    assert (sizes.argmax(1) == 0).double().mean() > 0.97
    assert (data["box_label"][:, 1:] != data["label"][:, None]).all()
    assert not data["difficult"][:, 0].any()


def test_captions_name_the_main_object_its_colour_and_what_else_is_there(
    some: Scenes, data: dict[str, Tensor]
) -> None:
    text = data["text"].numpy().tobytes().decode().split("\n")
    assert len(text) == COUNT
    for i, sentence in enumerate(text):
        for kind in data["box_label"][i][data["box_label"][i] >= 0].tolist():
            assert CLASSES[kind] in sentence
        assert palette.NAMES[int(some.named[i, some.main[i]])] in sentence
        assert sentence[0].isupper() and sentence.endswith(".")


# ------------------------------------------------------------------------------ second frames
def test_a_camera_that_stays_sees_the_same(some: Scenes) -> None:
    still = torch.tensor([0.0, 0.0, 1.0, 0.0], dtype=torch.float64).expand(24, 4)
    first = replace(some.take(slice(0, 24)), motion=still)
    assert torch.equal(render.render(first, 32, moved=True).pixels, render.render(first, 32).pixels)


def test_projecting_inverts_looking(some: Scenes) -> None:
    camera = Camera(COUNT, 16, some.motion)
    depth = 0.2 + some.x[:, :1].abs()
    x, y = camera.points(depth[:, :, None])
    seen_x, seen_y = camera.project(x.flatten(1), y.flatten(1), depth)
    still_x, still_y = Camera(COUNT, 16).points(depth[:, :, None])
    torch.testing.assert_close(seen_x, still_x.flatten(1))
    torch.testing.assert_close(seen_y, still_y.flatten(1))


def test_the_main_object_moves_by_the_stated_motion(some: Scenes) -> None:
    size = 64
    alone = (some.object >= 0).sum(1) == 1
    picked = some.take(((some.kind == PATTERN) & alone).nonzero().flatten())
    assert len(picked) > 10
    first, second = render.render(picked, size), render.render(picked, size, moved=True)
    dx, dy, zoom, roll = picked.motion.unbind(1)
    turn = torch.stack([roll.cos(), -roll.sin(), roll.sin(), roll.cos()], 1).view(-1, 2, 2)
    linear = zoom[:, None, None] * turn
    centre = torch.full((2,), (size - 1) / 2, dtype=torch.float64)
    shift = torch.stack([dx, dy], 1) * size + centre - linear @ centre
    matrix = torch.cat([linear, shift[:, :, None]], 2)
    before, after = first.pixels.double(), second.pixels.double()
    expected = warp_affine(before, matrix, (size, size))
    main = (first.owner >= 0).double()[:, None]
    there = warp_affine(main, matrix, (size, size)) > 0.99
    error = ((expected - after).abs() * there).sum() / there.sum()
    unmoved = ((before - after).abs() * there).sum() / there.sum()
    assert error < 0.25 * unmoved


def test_the_backdrop_moves_less_than_the_main_object(some: Scenes) -> None:
    """Parallax: a shift that aligns the object leaves the surface behind it misaligned."""
    size, pixels = 64, 8
    push = torch.tensor([pixels / size, 0.0, 1.0, 0.0], dtype=torch.float64)
    picked = some.take((some.kind == PATTERN).nonzero().flatten()[:40])
    picked = replace(picked, motion=push.expand(len(picked), 4))
    first, second = render.render(picked, size), render.render(picked, size, moved=True)
    behind = (first.owner == -1) & (second.owner == -1)

    def misfit(shift: int) -> float:
        gap = (first.pixels.roll(shift, 3).double() - second.pixels.double()).abs().mean(1)
        return float((gap * behind)[:, :, pixels:].mean())

    assert misfit(round(0.6 * pixels)) < min(misfit(0), misfit(pixels))


def test_frames_are_rendered_only_when_asked_for(small: Path) -> None:
    data = loader.load(None, DataOptions())
    assert not list(small.rglob("*frames*"))
    assert data.train.frames is not None
    index = torch.tensor([5, 2])
    ((back, frames),) = data.train.frames.take(index).stream([torch.tensor([1, 0])])
    assert list(small.rglob("train-frames*"))
    assert back.tolist() == [1, 0]
    everything = Frames(FrameFile("train", 240, 32))
    ((_, whole),) = everything.stream([torch.arange(240)])
    scenes = compose("train", 240, store.VERSION)
    assert torch.equal(whole, render.render(scenes, 32, moved=True).pixels)
    assert data.train.motion is not None
    same = (scenes.motion.float()[:, None] == data.train.motion[None, [2, 5]]).all(2)
    assert torch.equal(frames, whole[same.long().argmax(0)])


# --------------------------------------------------------------------------------- the cache
def test_the_cache_gives_back_what_was_rendered(small: Path) -> None:
    log: list[str] = []
    made = store.pictures("train", 24, 32, log)
    read = store.pictures("train", 24, 32, log)
    assert read.digest == made.digest
    assert read.tensors.keys() == made.tensors.keys()
    assert all(torch.equal(read.tensors[name], made.tensors[name]) for name in made.tensors)
    assert log == []


@pytest.mark.parametrize("damage", ["cut short", "one byte", "emptied", "foreign"])
def test_a_damaged_cache_is_rendered_again(small: Path, damage: str) -> None:
    made = store.pictures("train", 24, 32, [])
    (path,) = small.rglob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    damaged = {"cut short": content[:5000], "emptied": b"", "foreign": b"not a tensor" * 100}
    path.write_bytes(damaged.get(damage, content))
    log: list[str] = []
    again = store.pictures("train", 24, 32, log)
    assert again.digest == made.digest
    assert len(log) == 1 and str(path) in log[0]
    assert store.pictures("train", 24, 32, log).digest == made.digest and len(log) == 1


# --------------------------------------------------------------------------------- the loader
@pytest.mark.parametrize(
    ("arg", "size", "name"), [("16", None, "scenes16"), (None, 48, "scenes48")]
)
def test_the_side_is_given_by_argument_or_option(
    small: Path, arg: str | None, size: int | None, name: str
) -> None:
    data = loader.load(arg, DataOptions(size=size))
    side = int(name.removeprefix("scenes"))
    assert (data.info.name, data.info.size) == (name, side)
    assert data.test.images.size == (side, side)
    assert data.info.has == {
        *("color", "labels", "multilabel", "boxes", "masks", "text", "frames", "motion")
    }


@pytest.mark.parametrize(
    ("arg", "size"), [("big", None), ("8", None), (None, 300), ("64", 32), ("-32", None)]
)
def test_a_bad_side_is_told_in_one_line(arg: str | None, size: int | None) -> None:
    with pytest.raises(BenchError, match="scenes") as error:
        loader.load(arg, DataOptions(size=size))
    assert "\n" not in str(error.value)


def test_a_limit_keeps_classes_in_balance(small: Path) -> None:
    everything = loader.load(None, DataOptions())
    data = loader.load(None, DataOptions(limit=120))
    assert data.full.labels is not None
    assert data.full.labels.bincount().tolist() == [10] * len(CLASSES)
    assert len(data.train) + len(data.val) == 120 and len(data.test) == 48
    assert data.info.digest != everything.info.digest
    assert data.test.digest == everything.test.digest


# ------------------------------------------------------------------------------ the whole set
@pytest.mark.slow
def test_classes_are_balanced_and_no_picture_is_there_twice(whole: DataSet) -> None:
    full, test = _pixels(whole, "full"), _pixels(whole, "test")
    assert len(full) == 10_000 and len(test) == 2_000
    for split in (whole.full, whole.test):
        assert split.labels is not None
        counts = split.labels.bincount(minlength=len(CLASSES))
        assert counts.max() - counts.min() <= 1
    everything = torch.cat([full, test]).flatten(1)
    assert len({row.numpy().tobytes() for row in everything}) == len(everything)


@pytest.mark.slow
def test_pixels_alone_do_not_give_the_class_away(whole: DataSet) -> None:
    mean = torch.tensor(whole.info.mean)[:, None, None]
    std = torch.tensor(whole.info.std)[:, None, None]
    full, test = (
        ((_pixels(whole, name).float() / 255 - mean) / std).flatten(1).numpy()
        for name in ("full", "test")
    )
    assert whole.full.labels is not None and whole.test.labels is not None
    model = KNeighborsClassifier(20, metric="cosine").fit(full, whole.full.labels.numpy())
    assert model.score(test, whole.test.labels.numpy()) <= 0.45


def _pixels(data: DataSet, name: str) -> Tensor:
    images = getattr(data, name).images
    ((_, pixels),) = images.stream([torch.arange(len(images))])
    return pixels
