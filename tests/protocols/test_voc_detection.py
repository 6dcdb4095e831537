"""The detection protocol: its scoring path, its parts against torchvision, and its complaints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from detection_toys import SIZE, Blind, Mapless, Seeing, data, evaluation, run, squares
from torch import Tensor
from torchvision.ops import masks_to_boxes, roi_align

from bench import backbones
from bench.api import Encoder
from bench.data.dataset import Boxes, MemoryImages, Split
from bench.errors import BenchError
from bench.eval import detection
from bench.eval.detection_metrics import Detections
from bench.eval.detectors import (
    Detector,
    FasterRCNN,
    Pyramid,
    boxes_at,
    detection_view,
    flipped,
    picture_size,
    to_learn,
)
from bench.eval.training import trainable
from bench.features import weights_digest
from protocols import voc_detection
from protocols.light_detection import LightDetection
from protocols.voc_detection import VocDetection

REGIONS = {"rois": 8, "proposals": 10, "width": 16}


def small(size: int = SIZE) -> Encoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return backbones.build("small", size).requires_grad_(False).eval()


# ------------------------------------------------------------------------------------- the protocol
class Oracle(Detector):
    """Finds the coloured square where it is, to the pixel of the picture at its own size."""

    def __init__(self, pyramid: Pyramid, classes: int, size: int, **_: int) -> None:
        super().__init__(pyramid, size)
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def loss(self, x: Tensor, boxes: Sequence[Boxes]) -> Tensor:
        for found, real in zip(self.detect(x), boxes, strict=True):
            assert torch.equal(found.xyxy, real.xyxy), "boxes lie where the squares are seen"
        return self.weight

    def detect(self, x: Tensor) -> list[Detections]:
        scale = self.size // SIZE
        out = []
        for picture in x[:, :, :: scale or 1, :: scale or 1]:
            color = picture - picture.amin((1, 2), keepdim=True)
            label = color.amax((1, 2)).argmax()
            xyxy = masks_to_boxes((color[label] > 0.5 * color[label].max())[None])
            xyxy[:, 2:] += 1
            out.append(Detections(scale * xyxy, label[None], torch.rand(1)))
        return out


@pytest.mark.parametrize("size", [SIZE, None])
def test_perfect_boxes_score_everything(
    size: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through views, mirroring in training (`Oracle.loss`) and the scores of difficult objects."""
    monkeypatch.setattr(voc_detection, "FasterRCNN", Oracle)
    used = data(40, 30)
    assert used.test.boxes is not None
    hard = [replace(x, difficult=torch.tensor([i % 3 == 0])) for i, x in enumerate(used.test.boxes)]
    used = replace(used, test=replace(used.test, boxes=tuple(hard)))
    scores = run(VocDetection, Seeing(), tmp_path, used, size=size)
    assert scores.metrics == pytest.approx(
        dict.fromkeys(("AP50", "AP", "AP75", "mAP_voc11", "mAP_voc"), 100.0)
    )
    assert scores.selected["size"] == (size or 2 * SIZE)


@pytest.mark.parametrize("neck", ["c4", "fpn"])
def test_what_can_be_seen_is_found_and_a_blind_encoder_scores_the_floor(
    neck: str, tmp_path: Path
) -> None:
    """Chance is near 0, as places are guessed too; not 1 / classes."""
    settings = {"steps": 100, "batch_size": 8, "channels": 16, "frozen": True, "warmup_steps": 5}
    settings |= {"width": 64, "rois": 16, "proposals": 20, "neck": neck, "size": SIZE, "lr": 0.05}
    used = data(120, 30)
    seeing = run(VocDetection, Seeing(), tmp_path, used, **settings)
    assert seeing.metrics["AP50"] > 25
    blind = run(VocDetection, Blind(), tmp_path, used, **settings)
    assert blind.metrics["AP50"] < 8


@pytest.mark.parametrize("frozen", [True, False])
def test_the_encoder_is_left_as_it_was_and_repeats_itself(frozen: bool, tmp_path: Path) -> None:
    encoder = small()
    before, used = weights_digest(encoder), data(20, 10)
    torch.manual_seed(1)
    first = run(VocDetection, encoder, tmp_path, used, frozen=frozen, neck="c4")
    assert (weights_digest(encoder), encoder.training) == (before, False)
    torch.manual_seed(2)
    again = run(VocDetection, encoder, tmp_path, used, frozen=frozen, neck="c4")
    assert first.metrics == again.metrics


def test_pictures_that_cannot_be_decoded_are_scored_as_if_not_there() -> None:
    class Gaps(MemoryImages):
        def stream(self, batches):  # type: ignore[no-untyped-def]
            for index, pixels in super().stream(batches):
                yield index[index % 2 == 0], pixels[index % 2 == 0]

    used = data(40, 10)
    assert isinstance(used.test.images, MemoryImages)
    used = replace(used, test=replace(used.test, images=Gaps(used.test.images.pixels)))
    test = evaluation(used, Seeing(), Path("/nowhere")).read_test()
    oracle = Oracle(Pyramid(Seeing(), "fpn", SIZE, 4, frozen=True), 3, SIZE)
    view = detection_view(used.info, SIZE)
    found, truth = detection.find(oracle, test, view, boxes_at(test, SIZE))
    assert len(found) == 5
    assert used.test.boxes is not None
    for here, real, stored in zip(found, truth, used.test.boxes[::2], strict=True):
        assert torch.equal(here.xyxy, real.xyxy)
        assert torch.equal(real.xyxy, stored.xyxy)


# -------------------------------------------------------------------------------------- complaints
@pytest.mark.parametrize("protocol", [VocDetection, LightDetection])
def test_what_cannot_work_is_told_in_a_line(
    protocol: type[VocDetection | LightDetection], tmp_path: Path
) -> None:
    def fault(match: str, encoder: Encoder, used: object = None, **settings: object) -> None:
        with pytest.raises(BenchError, match=match) as error:
            run(protocol, encoder, tmp_path, used or data(20, 10), **settings)
        assert "\n" not in str(error.value)

    fault("no feature maps to detect objects on; use a method with a backbone", Mapless())
    vit = backbones.build("vit_nano_patch8", SIZE).requires_grad_(False)
    fault(r"cannot take pictures of 30 px; set protocol\.size", vit, size=30)
    made = data(20, 10)
    fault("full split of squares has no boxes", Seeing(), replace(made, full=bare(made.full)))
    fault("test split of squares has no boxes", Seeing(), replace(made, test=bare(made.test)))
    fault("loss is not finite after 2 steps", Seeing(), lr=1e30, warmup_steps=0)


def bare(split: Split) -> Split:
    return replace(split, boxes=None)


def test_a_transformer_detects_at_its_own_size(tmp_path: Path) -> None:
    vit = backbones.build("vit_nano_patch8", SIZE).requires_grad_(False)
    scores = run(VocDetection, vit, tmp_path, data(20, 10), size=SIZE)
    assert scores.selected["layers"] == ["block4"], "its blocks are one level"


# ------------------------------------------------------------------------------------------- parts
def test_the_size_is_the_stored_one_within_two_to_four_times_the_encoders() -> None:
    info = data(20, 10).info
    for own, stored, size in ((32, 32, 64), (32, 96, 96), (32, 256, 128), (224, 256, 448)):
        assert picture_size(replace(info, size=own), stored) == size


def test_levels_by_stride() -> None:
    encoder = small()
    sides = {
        (neck, size): Pyramid(encoder, neck, size, 4, frozen=True).sides
        for neck in ("c4", "fpn")
        for size in (64, 512)
    }
    # The small backbone's maps have strides of 2, 4, 8 and 16.
    assert sides["fpn", 64] == [16, 8, 4]
    assert sides["c4", 64] == [4]
    assert sides["c4", 512] == [32]
    resnet = backbones.build("resnet18", 224)
    # Strides of 2, 4, 8, 16 and 32; conv4 has 16.
    assert Pyramid(resnet, "c4", 64, 4, frozen=True).layers == ["layer3"]
    assert Pyramid(resnet, "fpn", 64, 4, frozen=True).sides == [16, 8, 4, 2]


def test_a_frozen_encoder_gets_no_gradient_and_keeps_its_statistics() -> None:
    x, truth = torch.randn(4, 3, SIZE, SIZE), list(squares("some", 4).boxes or ())
    for frozen in (True, False):
        encoder = small() if frozen else trainable(small())
        detector = FasterRCNN(Pyramid(encoder, "fpn", SIZE, 4, frozen=frozen), 3, SIZE, **REGIONS)
        before = weights_digest(encoder)
        detector.train().loss(x, truth).backward()
        trunk, head = detector.parts()
        assert encoder.training != frozen
        assert (weights_digest(encoder) == before) == frozen, "batch norm's running statistics"
        assert bool(trunk) != frozen
        assert sum(p.numel() for p in (*trunk, *head)) == sum(
            p.numel() for p in detector.parameters() if p.requires_grad
        )
        assert any(p.grad is not None for p in trunk) != frozen


def test_mirrored_boxes_lie_on_mirrored_pictures() -> None:
    split = squares("mirror", 40)
    assert split.boxes is not None
    assert isinstance(split.images, MemoryImages)
    x = split.images.pixels.float()
    mirrored, boxes = flipped(x, split.boxes, torch.Generator().manual_seed(0))
    changed = 0
    for picture, before, box in zip(mirrored, x, boxes, strict=True):
        found = masks_to_boxes((picture != 100).any(0)[None])
        found[:, 2:] += 1
        assert torch.equal(found, box.xyxy)
        changed += int(not torch.equal(picture, before))
    assert 10 < changed < 30


def test_difficult_objects_are_not_learnt() -> None:
    xyxy = torch.arange(12.0).view(3, 4)
    boxes = [Boxes(xyxy, torch.tensor([0, 1, 2]), torch.tensor([False, True, False]))]
    (learnt,) = to_learn(boxes, torch.device("cpu"))
    assert learnt.label.tolist() == [0, 2]
    assert torch.equal(learnt.xyxy, xyxy[[0, 2]])


def test_anchors_span_the_same_shares_of_any_side() -> None:
    for neck, size in (("c4", 64), ("fpn", 64), ("fpn", 800)):
        pyramid = Pyramid(small(), neck, size, 4, frozen=True)  # type: ignore[arg-type]
        model = FasterRCNN(pyramid, 3, size, **REGIONS).model
        sizes = torch.tensor(model.rpn.anchor_generator.sizes).flatten() / size
        assert (sizes[0].item(), sizes[-1].item()) == pytest.approx((0.04, 0.64))
        steps = sizes[1:] / sizes[:-1]
        assert torch.allclose(steps, steps[0].expand_as(steps))


class Ramp(Encoder):
    """One map with a stride of 14 px, whose values are the places of its points."""

    dim, layers = 2, ("patches",)

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((1, 2, 3))[:, None].expand(-1, 2)

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        at = (torch.arange(x.shape[2] // 14) + 0.5) * 14
        grid = torch.stack(torch.meshgrid(at, at, indexing="xy"))
        return {"patches": grid.expand(len(x), -1, -1, -1)}


def test_regions_are_read_where_they_are_whatever_the_stride() -> None:
    pyramid = Pyramid(Ramp(), "fpn", 140, 4, frozen=True)
    pool = FasterRCNN(pyramid, 3, 140, **REGIONS).model.roi_heads.box_roi_pool
    maps = Ramp().maps(torch.zeros(1, 3, 140, 140))
    box = torch.tensor([[28.0, 42.0, 98.0, 112.0]])
    pooled = pool(maps, [box], [(140, 140)])
    assert torch.equal(pooled, roi_align(maps["patches"], [box], 7, 1 / 14, 0))
    # Each of 7 bins of 10 px reads the place of its middle, half a map's point off (RoIAlign v1).
    middles = 28 + 10 * (torch.arange(7) + 0.5) + 7
    assert torch.allclose(pooled[0, 0, 0], middles, atol=1e-3)
