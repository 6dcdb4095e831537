"""Segmentation: sanity on pictures that show their masks, heads by hand, dilation against timm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor
from torch.nn import functional as F

from bench import backbones, conformance
from bench.api import Encoder, Scores
from bench.data.dataset import DataSet, LazyMasks, Masks, MemoryImages, Split
from bench.errors import BenchError
from bench.eval.dilation import dilated
from bench.eval.fcn import FCNHead, last_maps, pixel_loss
from bench.features import Evaluation, FeatureStore, weights_digest
from bench.progress import Reporter
from bench.rng import generator
from protocols.voc_segmentation import VocSegmentation

CLASSES, SIZE, VOID = 4, 32, 255
COUNTS = {"full": 90, "test": 25}
GRAY = 60  # between the red of two mask values


class AnySize(LazyMasks):
    """Masks of their own sizes."""

    def __init__(self, masks: list[Tensor]) -> None:
        self.masks = masks

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, at):  # type: ignore[no-untyped-def]
        return self.masks[at]

    def take(self, index: Tensor) -> AnySize:
        return AnySize([self.masks[i] for i in index.tolist()])


def split(name: str, lazy: bool = False) -> Split:
    """Rectangles of a class anywhere, and the pictures show them: red is 60 times mask value."""
    rng = generator("rectangles", name)
    masks = torch.zeros(COUNTS[name], SIZE, SIZE, dtype=torch.uint8)
    for number, mask in enumerate(masks):
        top, left = torch.randint(2, 12, (2,), generator=rng).tolist()
        mask[top : top + 14, left : left + 10] = 1 + number % CLASSES
    pixels = torch.randint(0, 256, (COUNTS[name], 3, SIZE, SIZE), generator=rng).to(torch.uint8)
    pixels[:, 0] = GRAY * masks
    masks[:, 0, :5] = VOID
    masks[::5] = VOID  # pictures without any annotation
    found: Masks = masks
    if lazy:  # of twice the height: pictures are stored squashed
        found = AnySize([mask.repeat_interleave(2, dim=0) for mask in masks])
    return Split(name, MemoryImages(pixels), f"masks-{name}", semantic=found)


def data(lazy: bool = False) -> DataSet:
    full, info = split("full", lazy), conformance.toy_info()
    at = torch.arange(len(full))
    info = replace(info, has=frozenset({"masks"}))
    return DataSet(info, full, full.take(at[:70]), full.take(at[70:]), split("test", lazy))


class Constant(Encoder):
    """The same maps for every picture."""

    dim, layers = 1, ("map",)

    def forward(self, x: Tensor) -> Tensor:
        return torch.ones(len(x), self.dim)

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        return {"map": torch.full((len(x), 3, 4, 4), 0.3)}


class Leak(Constant):
    """Reads the mask off the picture."""

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        value = (conformance.toy_info().rgb(x)[:, 0] * 255 / GRAY).round().long()
        return {"map": F.one_hot(value.clamp(0, CLASSES), CLASSES + 1).permute(0, 3, 1, 2).float()}


def small() -> Encoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return backbones.build("small", SIZE).requires_grad_(False).eval()


def run(encoder: Encoder, folder: Path, used: DataSet | None = None, **settings: object) -> Scores:
    cfg = VocSegmentation.Config(**{**VocSegmentation.toy, **settings})  # type: ignore[arg-type]
    store = FeatureStore(folder, encoder, "toy", torch.device("cpu"), Reporter(quiet=True))
    evaluation = Evaluation(used or data(), store)
    scores = VocSegmentation().run(encoder.eval(), evaluation, cfg, 0)
    assert evaluation.test_was_read
    return scores


@pytest.mark.parametrize("lazy", [False, True])
def test_masks_that_are_shown_are_found(lazy: bool, tmp_path: Path) -> None:
    """Flips that did not turn the masks too would blur what is learnt."""
    scores = run(Leak(), tmp_path, data(lazy))
    assert scores.metrics == {"mIoU": 100.0, "pixel_accuracy": 100.0, "mean_accuracy": 100.0}
    assert {values["IoU"] for values in scores.per_layer.values()} == {100.0}
    assert list(scores.per_layer) == ["ground", *conformance.toy_info().classes]


@pytest.mark.parametrize("lazy", [False, True])
def test_a_constant_encoder_scores_as_the_most_frequent_class(lazy: bool, tmp_path: Path) -> None:
    scores = run(Constant(), tmp_path, data(lazy))
    masks = split("test").semantic
    assert isinstance(masks, Tensor)
    ground = (masks == 0).sum().item() / (masks != VOID).sum().item()
    assert scores.metrics["pixel_accuracy"] == pytest.approx(100 * ground)
    assert scores.metrics["mIoU"] == pytest.approx(100 * ground / (CLASSES + 1))
    assert scores.metrics["mean_accuracy"] == pytest.approx(100 / (CLASSES + 1))


def test_shuffled_test_masks_are_seen_and_change_no_choice(tmp_path: Path) -> None:
    honest = data()
    masks = honest.test.semantic
    assert isinstance(masks, Tensor)
    test = replace(honest.test, semantic=masks.roll(1, 0), digest="rolled")
    scores = run(Leak(), tmp_path, replace(honest, test=test))
    assert scores.selected == run(Leak(), tmp_path).selected
    assert scores.metrics["mIoU"] < 25


def test_a_class_that_is_nowhere_in_test_is_left_out_and_named(tmp_path: Path) -> None:
    honest = data()
    masks = honest.test.semantic
    assert isinstance(masks, Tensor)
    masks = torch.where(masks == 2, VOID, masks)
    scores = run(Leak(), tmp_path, replace(honest, test=replace(honest.test, semantic=masks)))
    assert scores.metrics["mIoU"] == 100
    absent = conformance.toy_info().classes[1]
    assert scores.selected["classes_left_out"] == [absent]
    assert absent not in scores.per_layer


@pytest.mark.parametrize("head", ["fcn32s", "fcn16s", "fcn8s", "dilated"])
def test_every_head_repeats_itself_and_leaves_the_encoder_alone(head: str, tmp_path: Path) -> None:
    encoder = small()
    before = weights_digest(encoder)
    settings = {"head": head, "frozen": False, "min_steps": 2, "size": 16}
    found = [run(encoder, tmp_path, **settings) for _ in range(2)]
    assert found[0].metrics == found[1].metrics
    layers = ["stem", "stage1", "stage2"]  # the last map is a single place at 16 px
    count = {"fcn32s": 1, "fcn16s": 2, "fcn8s": 3}.get(head)
    assert found[0].selected["layers"] == (layers[-count:] if count else ["stage3"])
    assert weights_digest(encoder) == before
    assert not any(p.requires_grad for p in encoder.parameters())
    assert not encoder.training


def test_fine_tuning_fits_what_a_frozen_random_encoder_does_not(tmp_path: Path) -> None:
    frozen, tuned = (run(small(), tmp_path, frozen=f, size=16) for f in (True, False))
    assert tuned.metrics["mIoU"] > frozen.metrics["mIoU"] + 5


# -------------------------------------------------------------------------------------- the parts
def test_scores_are_fused_from_the_deepest_map_on() -> None:
    rng = generator("fcn")
    maps = {
        "first": torch.randn(6, 3, 9, 9, generator=rng),
        "second": torch.randn(6, 5, 4, 4, generator=rng),
        "third": torch.randn(6, 7, 2, 2, generator=rng),
    }
    head = FCNHead({layer: x.shape[1] for layer, x in maps.items()}, 4)
    assert not head(maps).any(), "scores start at zero"
    with torch.no_grad():
        for value in head.parameters():
            value.normal_(generator=rng)

    def scored(layer: str) -> Tensor:
        x = maps[layer].double()
        x = (x - x.mean((0, 2, 3), keepdim=True)) / (
            x.var((0, 2, 3), correction=0, keepdim=True) + 1e-5
        ).sqrt()
        conv = head.scores[layer]
        weight, bias = conv.weight[:, :, 0, 0].double(), conv.bias.double()
        return torch.einsum("oc,bchw->bohw", weight, x) + bias[:, None, None]

    expected = scored("third")
    for layer, side in (("second", 4), ("first", 9)):
        enlarge = torch.nn.Upsample((side, side), mode="bilinear", align_corners=False)
        expected = enlarge(expected) + scored(layer)
    torch.testing.assert_close(head(maps).double(), expected, atol=1e-5, rtol=1e-5)


def test_the_loss_is_the_mean_over_pixels_that_are_not_void() -> None:
    rng = generator("loss")
    scores = torch.randn(2, 3, 5, 5, generator=rng)
    masks = torch.randint(3, (2, 5, 5), generator=rng).to(torch.uint8)
    masks[0, :3], masks[1] = VOID, VOID
    terms = [
        -scores[b, :, r, c].double().log_softmax(0)[int(masks[b, r, c])]
        for b, r, c in (masks != VOID).nonzero().tolist()
    ]
    assert len(terms) == 10
    assert pixel_loss(scores, masks).item() == pytest.approx((sum(terms) / 10).item(), rel=1e-6)


def test_a_dilated_resnet_is_timms_output_stride_8() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = backbones.build("resnet18", 64, stem="own").eval()
    theirs = timm.create_model("resnet18", num_classes=0, output_stride=8).eval()
    theirs.load_state_dict(encoder.model.state_dict())
    x = torch.randn(2, 3, 64, 64, generator=generator("pictures"))
    with torch.no_grad():
        found = dilated(encoder, 64).maps(x)["layer4"]
        expected = theirs.forward_features(x)
    assert found.shape[2:] == (8, 8)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("name", "size"), [("small", 32), ("small", 40), ("resnet26", 32)])
def test_dilation_computes_the_same_at_more_places(name: str, size: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = backbones.build(name, size).eval()
    layer = encoder.layers[-1]
    x = torch.randn(2, 3, size, size, generator=generator("pictures"))
    with torch.no_grad():
        coarse, fine = (network.maps(x)[layer] for network in (encoder, dilated(encoder, size)))
    assert fine.shape[-1] > 2 * coarse.shape[-1]
    torch.testing.assert_close(fine[:, :, ::4, ::4], coarse, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["vit_nano_patch8", "vit_tiny_patch16_224", "nin4", "alexnet"])
def test_what_cannot_be_dilated_is_told(name: str) -> None:
    encoder = backbones.build(name, 64).eval()
    with pytest.raises(BenchError, match=r"cannot be dilated; choose a convolutional"):
        dilated(encoder, 64)


def test_what_cannot_be_segmented_by_is_told(tmp_path: Path) -> None:
    class Bare(Constant):
        layers = ()

    with pytest.raises(BenchError, match="Bare gives no feature maps to segment by"):
        run(Bare(), tmp_path)
    with pytest.raises(BenchError, match="every map of Small is a single place at 2 px"):
        last_maps(small(), 2, 3)
    with pytest.raises(BenchError, match="cannot take pictures of 20 px; set another"):
        last_maps(backbones.build("vit_nano_patch8", 32).eval(), 20, 3)


def test_unfit_masks_are_told(tmp_path: Path) -> None:
    honest = data()
    masks = honest.full.semantic
    assert isinstance(masks, Tensor)
    strange = masks.clone()
    strange[7, 3, 3] = CLASSES + 1
    cases = {
        "masks of the full split of toy hold the value 5": strange,
        "every mask of toy is void": torch.full_like(masks, VOID),
        "are 16 x 32 px, its pictures 32 x 32 px": masks[:, ::2],
    }
    for message, semantic in cases.items():
        used = replace(honest, full=replace(honest.full, semantic=semantic))
        with pytest.raises(BenchError, match=message):
            run(Leak(), tmp_path, used)
