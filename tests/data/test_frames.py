"""Folders of video frames: pairs, order, motions, clips that keep to their side, bad input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from bench import conformance, engine, registry
from bench.api import DataInfo
from bench.data import catalog, stored
from bench.data.dataset import DataOptions, DataSet, Images, Split
from bench.data.folder import FolderImages
from bench.engine import EngineConfig
from bench.errors import BenchError
from bench.progress import Reporter
from bench.resolve import parse_sets, resolve
from bench.runner import run

SIDE = 16
Made = Callable[..., Path]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def clip(tmp_path: Path) -> Made:
    """Writes a clip whose frame i has the colour (number of the clip, 3 i, 200)."""
    written: list[Path] = []

    def write(name: str, frames: int = 6, motion: int = 0) -> Path:
        folder = tmp_path / "set" / name
        folder.mkdir(parents=True)
        for i in range(frames):
            colour = (len(written), 3 * i, 200)
            Image.new("RGB", (SIDE, SIDE), colour).save(folder / f"frame{i}.png")
        if motion:
            rows = [[len(written) + i / 10 + k for k in range(motion)] for i in range(frames - 1)]
            text = "\n".join(",".join(map(str, row)) for row in rows)
            (folder / "motion.csv").write_text(text + "\n")
        written.append(folder)
        return folder

    return write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "set"


def colours(images: Images) -> Tensor:
    """Each picture's red (the clip's number) and green (three times the frame's), `[N, 2]`."""
    batches = images.stream(torch.arange(len(images)).split(7))
    pixels = torch.cat([x for _, x in batches])
    assert (pixels == pixels[:, :, :1, :1]).all() and (pixels[:, 2] == 200).all()
    return pixels[:, :2, 0, 0].long()


def clips_of(split: Split) -> set[int]:
    return set(colours(split.images)[:, 0].tolist())


def load(root: Path, tail: str = "", **options: object) -> DataSet:
    return catalog.load(f"frames:{root}{tail}", DataOptions(**options))


# ---------------------------------------------------------------------------------------- pairs
@pytest.mark.parametrize("stride", [1, 3])
def test_the_second_frame_follows_by_the_stride_in_the_order_of_numbers(
    clip: Made, root: Path, stride: int
) -> None:
    for i in range(5):
        clip(f"clip{i}", frames=12)  # frame10 and frame11 come after frame9
    data = load(root, "" if stride == 1 else f",stride={stride}")
    for split in (data.full, data.test):
        assert split.frames is not None
        first, second = colours(split.images), colours(split.frames)
        assert torch.equal(second[:, 0], first[:, 0])
        assert torch.equal(second[:, 1] - first[:, 1], torch.full((len(split),), 3 * stride))
        for number in clips_of(split):
            own = first[first[:, 0] == number, 1]
            assert own.tolist() == [3 * i for i in range(12 - stride)]
    assert data.info.name == ("frames-set" if stride == 1 else "frames-set-stride3")
    assert data.info.has == {"color", "frames"}


def test_motions_stay_with_their_pairs(clip: Made, root: Path) -> None:
    for i in range(6):
        clip(f"clip{i}", motion=3)
    data = load(root)
    for split in (data.full, data.train, data.val, data.test):
        at = colours(split.images).float()
        expected = at[:, :1] + at[:, 1:] / 30 + torch.arange(3)
        assert split.motion is not None
        torch.testing.assert_close(split.motion, expected)
    assert "motion" in data.info.has


# ------------------------------------------------------------------------------- who sees which
def check_sides(data: DataSet) -> None:
    """No clip is on two sides, and training and validation part the full split."""
    train, val, test = (clips_of(split) for split in (data.train, data.val, data.test))
    assert train and val and test
    assert not (train & val or train & test or val & test)
    assert train | val == clips_of(data.full)
    assert len(data.train) + len(data.val) == len(data.full) == data.info.n_train


def test_clips_without_classes_are_held_out_whole(clip: Made, root: Path) -> None:
    for i in range(10):
        clip(f"clip{i}")
    options = DataOptions()
    data = catalog.load(f"frames:{root}", options)
    check_sides(data)
    assert len(clips_of(data.test)) == 2
    assert data.full.labels is None and data.info.classes == ()
    assert "2 of 10 were set apart" in options.log[0]
    assert load(root).info == data.info


def test_classes_are_the_outer_folders_and_all_sides_hold_each(clip: Made, root: Path) -> None:
    numbers: dict[str, list[int]] = {"cat": [], "dog": []}
    for i in range(10):
        kind = ("cat", "dog")[i % 2]
        clip(f"{kind}/clip{i}")
        numbers[kind].append(i)
    data = load(root)
    check_sides(data)
    assert data.info.classes == ("cat", "dog")
    for split in (data.train, data.val, data.test):
        at = colours(split.images)[:, 0].tolist()
        assert split.labels is not None
        assert split.labels.tolist() == [int(number in numbers["dog"]) for number in at]
        assert set(split.labels.tolist()) == {0, 1}


@pytest.mark.parametrize("part", ["test", "val"])
def test_test_clips_may_have_their_own_folder(clip: Made, root: Path, part: str) -> None:
    for i in range(6):
        clip(f"train/{'ab'[i % 2]}/clip{i}")
    clip(f"{part}/b/clip")
    data = load(root)
    check_sides(data)
    assert clips_of(data.test) == {6} and clips_of(data.full) == set(range(6))
    assert data.test.labels is not None and data.test.labels.tolist() == [1] * 5


def test_a_limit_keeps_pairs(clip: Made, root: Path) -> None:
    for i in range(8):
        clip(f"clip{i}")
    data = load(root, limit=20)
    check_sides(data)
    assert len(data.full) == 20 and data.info.name == "frames-set-limit20"
    assert data.full.frames is not None
    assert (colours(data.full.frames) - colours(data.full.images)).unique(dim=0).tolist() == [
        [0, 3]
    ]


# --------------------------------------------------------------------------------- broken input
@pytest.mark.parametrize(
    ("broken", "left"), [(0, [3, 6, 9, 12]), (2, [0, 9, 12]), (5, [0, 3, 6, 9])]
)
def test_a_broken_frame_takes_its_pairs_along(
    clip: Made, root: Path, broken: int, left: list[int]
) -> None:
    for i in range(6):
        clip(f"train/clip{i}", motion=1)
    clip("test/clip", motion=1)
    (root / "train" / "clip3" / f"frame{broken}.png").write_text("no picture")
    options = DataOptions()
    data = catalog.load(f"frames:{root}", options)
    at = colours(data.full.images)
    assert at[at[:, 0] == 3, 1].tolist() == left
    assert data.full.motion is not None
    torch.testing.assert_close(data.full.motion[:, 0], at[:, 0] + at[:, 1] / 30)
    assert f"clip3/frame{broken}.png (not a picture)" in options.log[0]


def test_large_sets_stay_lazy_and_refuse_broken_frames(
    clip: Made, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(6):
        clip(f"clip{i}")
    in_memory = load(root)
    monkeypatch.setattr(stored, "IN_MEMORY", 0)
    data = load(root)
    assert isinstance(data.full.images, FolderImages)
    assert data.full.frames is not None and in_memory.full.frames is not None
    assert torch.equal(colours(data.full.frames), colours(in_memory.full.frames))
    for path in root.glob("*/frame4.png"):
        path.write_text("no picture")
    with pytest.raises(BenchError, match=r"frame4\.png cannot be decoded \(not a picture\)"):
        colours(data.full.images)


def test_clips_of_one_frame_are_left_out_in_one_line(clip: Made, root: Path) -> None:
    for i in range(5):
        clip(f"clip{i}")
    clip("short", frames=1)
    clip("shorter", frames=1)
    options = DataOptions()
    check_sides(catalog.load(f"frames:{root}", options))
    assert options.log[0].startswith("left out 2 clips of at most 1 frames")
    assert options.log[0].endswith("the first being short")


def _empty(clip: Made, root: Path) -> None:
    root.mkdir()


def _loose(clip: Made, root: Path) -> None:
    clip("")


def _single(clip: Made, root: Path) -> None:
    clip("a", frames=1)


def _mixed(clip: Made, root: Path) -> None:
    clip("a")
    clip("b/c")


def _few(clip: Made, root: Path) -> None:
    clip("a/one")
    clip("b/two")
    clip("b/three")


def _strange(clip: Made, root: Path) -> None:
    clip("train/a/one")
    clip("train/a/two")
    clip("test/b/three")


def _flat_test(clip: Made, root: Path) -> None:
    clip("train/a/one")
    clip("test/two")


def _some_motion(clip: Made, root: Path) -> None:
    for i in range(4):
        clip(f"{i}", motion=i % 2)


def _csv(text: str) -> Callable[[Made, Path], None]:
    def write(clip: Made, root: Path) -> None:
        for i in range(4):
            (clip(f"{i}", frames=3, motion=2) / "motion.csv").write_text(text)

    return write


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda clip, root: None, "there is no folder"),
        (_empty, "holds no clips"),
        (_loose, "holds no clips"),
        (_single, "no clip of more than 1 frames"),
        (_mixed, "beside folders of clips"),
        (_few, "a/one is the only clip left"),
        (_strange, "has the class folder 'b', unlike"),
        (_flat_test, "has no class folders, unlike"),
        (_some_motion, r"a motion\.csv of as many columns, or none"),
        (_csv("dx,dy\n1,2\n3,4"), "without a heading"),
        (_csv("1,2\n"), r"has 1 rows, but its clip 2 pairs"),
        (_csv("1,2\n3\n"), "rows of different lengths"),
        (_csv("1,2\n3,nan\n"), "not finite"),
    ],
)
def test_what_is_amiss_is_told_in_one_line(
    clip: Made, root: Path, make: Callable[[Made, Path], None], message: str
) -> None:
    make(clip, root)
    with pytest.raises(BenchError, match=message) as error:
        load(root)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("spec", ["frames", "frames:", "frames:x,stride=0", "frames:x,stride=two"])
def test_a_bad_argument_is_told_in_one_line(spec: str) -> None:
    with pytest.raises(BenchError, match="frames"):
        catalog.load(spec)


# ------------------------------------------------------------------------------------- in use
def scene(folder: Path, seed: int, frames: int = 5) -> None:
    """A clip of a camera that moves one pixel to the right over a smooth picture."""
    folder.mkdir(parents=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    wide = Image.fromarray(coarse).resize((48, 48), Image.Resampling.BICUBIC)
    for i in range(frames):
        wide.crop((i, 0, i + 32, 32)).save(folder / f"{i}.png")
    (folder / "motion.csv").write_text("-1,0\n" * (frames - 1))


@pytest.mark.parametrize("name", ["egomotion", "tracking", "temporal_color"])
def test_methods_train_on_a_folder(tmp_path: Path, name: str) -> None:
    for i in range(12):
        scene(tmp_path / "set" / f"clip{i}", seed=i)
    data = load(tmp_path / "set")
    cls = registry.method(name)
    cfg = conformance.build(cls, name).cfg
    extra = {"components": ("dx", "dy")} if name == "egomotion" else {}
    cfg = type(cfg)(**{**cfg.model_dump(), "epochs": 1, **extra})
    method = cls(cfg, conformance.build(cls, name).backbone, data.info)
    before = conformance.build(cls, name).backbone.state_dict()
    done = engine.fit(
        method,
        data.full,
        EngineConfig(device="cpu"),
        seed=0,
        folder=tmp_path / "run",
        reporter=Reporter(quiet=True),
    )
    assert done.status == "ok" and len(done.history) == 1
    after = method.backbone.state_dict()
    assert not torch.equal(before["stem.0.weight"], after["stem.0.weight"])


def test_protocols_that_need_labels_say_that_there_are_none(tmp_path: Path) -> None:
    for i in range(12):
        scene(tmp_path / "set" / f"clip{i}", seed=i)
    data = load(tmp_path / "set")
    resolved = resolve(
        method="tracking",
        protocol="knn",
        data=f"frames:{tmp_path / 'set'}",
        size=data.info.size,
        backbone="small",
        seed=0,
        recipe="auto",
        overrides=parse_sets([]) | {"engine": {"device": "cpu"}},
    )
    with pytest.raises(BenchError, match="knn needs labels; frames-set has none"):
        run(resolved, data, tmp_path / "results", Reporter(quiet=True))


def test_clips_without_labels_are_pretrained_on_and_other_data_evaluated_on(tmp_path: Path) -> None:
    for i in range(12):
        scene(tmp_path / "set" / f"clip{i}", seed=i)
    data, digits = load(tmp_path / "set"), catalog.load("digits", DataOptions(limit=200))
    overrides = parse_sets([]) | {"engine": {"device": "cpu"}}
    overrides["method"] = {"epochs": 1, "batch_size": 16}
    resolved = resolve(
        method="tracking",
        protocol="knn",
        data=f"frames:{tmp_path / 'set'}",
        size=data.info.size,
        backbone="small",
        seed=0,
        recipe="auto",
        overrides=overrides,
    )
    results = tmp_path / "results"
    outcome = run(resolved, data, results, Reporter(quiet=True), target=digits)
    made = outcome.record
    assert made.pretraining.data == "frames-set" and made.data.name == digits.info.name
    assert made.data.digest == digits.info.digest
    assert outcome.scores is not None and outcome.scores.labels is not None
    assert torch.equal(outcome.scores.labels.cpu(), digits.test.labels)
    again = run(resolved, data, results, Reporter(quiet=True), target=digits)
    assert again.reproduced and again.record == made


def test_a_data_set_without_frames_is_told(tmp_path: Path) -> None:
    data = catalog.load("digits")
    assert isinstance(data.info, DataInfo)
    resolved = resolve(
        method="tracking",
        protocol="knn",
        data="digits",
        size=32,
        backbone="small",
        seed=0,
        recipe="auto",
        overrides=parse_sets([]) | {"engine": {"device": "cpu"}},
    )
    with pytest.raises(BenchError, match="method tracking needs frames; digits has none"):
        run(resolved, data, tmp_path / "results", Reporter(quiet=True))
