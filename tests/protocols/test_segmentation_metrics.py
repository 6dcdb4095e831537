"""Numbers of segmentation against torchmetrics and scikit-learn, and masks as they are met."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, jaccard_score
from torch import Tensor
from torchmetrics.functional.classification import multiclass_jaccard_index

from bench.api import DataInfo, Encoder, EvalSplit, View
from bench.data.dataset import LazyMasks, MemoryImages, Split
from bench.errors import BenchError
from bench.eval.segmentation import (
    Confusion,
    class_iou,
    masks_at,
    pixel_confusion,
    segmentation_metrics,
)

CLASSES, VOID = 5, 255
VIEW = View("whole", ())


def case(name: str) -> tuple[Tensor, Tensor]:
    """(predictions, masks) `[4, 9, 11]` of 5 classes."""
    rng = torch.Generator().manual_seed(0)
    masks = torch.randint(CLASSES, (4, 9, 11), generator=rng)
    predicted = torch.randint(CLASSES, (4, 9, 11), generator=rng)
    predicted = torch.where(torch.rand(masks.shape, generator=rng) < 0.6, masks, predicted)
    if name != "no void":
        masks[torch.rand(masks.shape, generator=rng) < 0.2] = VOID
    if name == "class not in the masks":
        masks[masks == 3] = 0
    elif name == "class never predicted":
        predicted[predicted == 3] = 1
    elif name == "class nowhere":
        masks[masks == 3], predicted[predicted == 3] = 0, 1
    elif name == "class only below void":
        predicted[(masks != VOID) & (predicted == 3)] = 1
        masks[masks == 3] = 2
    elif name == "perfect":
        predicted = torch.where(masks == VOID, 4, masks)
    elif name == "all wrong":
        predicted = (torch.where(masks == VOID, 0, masks) + 1) % CLASSES
    elif name == "all ground":
        predicted = torch.zeros_like(masks)
    elif name == "one pixel":
        masks[:] = VOID
        masks[2, 3, 4] = 2
    elif name == "a picture all void":
        masks[1] = VOID
    return predicted, masks


CASES = (
    *("random", "no void", "class not in the masks", "class never predicted", "class nowhere"),
    *("class only below void", "perfect", "all wrong", "all ground", "one pixel"),
    "a picture all void",
)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("batch", [1, 3, 4])
def test_numbers_agree_with_torchmetrics_and_scikit_learn(name: str, batch: int) -> None:
    predicted, masks = case(name)
    confusion = Confusion(CLASSES, torch.device("cpu"))
    for some, truth in zip(predicted.split(batch), masks.to(torch.uint8).split(batch), strict=True):
        confusion.add(some, truth)
    matrix = confusion.matrix("the masks")

    seen = masks != VOID
    true, said = masks[seen].numpy(), predicted[seen].numpy()
    assert np.array_equal(matrix.numpy(), confusion_matrix(true, said, labels=range(CLASSES)))
    found = segmentation_metrics(matrix)
    expected = multiclass_jaccard_index(predicted, masks, CLASSES, ignore_index=VOID)
    assert found["mIoU"] == pytest.approx(100 * expected.item(), abs=1e-4)  # it is float32
    there = sorted({*true.tolist(), *said.tolist()})
    each = 100 * jaccard_score(true, said, labels=there, average=None, zero_division=0)
    assert found["mIoU"] == pytest.approx(each.mean(), abs=1e-9)
    iou = class_iou(matrix)
    assert iou.isnan().nonzero().flatten().tolist() == sorted({*range(CLASSES)} - {*there})
    np.testing.assert_allclose(iou[there].numpy(), each, atol=1e-9)
    assert found["pixel_accuracy"] == pytest.approx(100 * (true == said).mean())
    recall = [(said[true == value] == value).mean() for value in np.unique(true)]
    assert found["mean_accuracy"] == pytest.approx(100 * np.mean(recall))
    if {*said.tolist()} <= {*true.tolist()} and len(true) > 1:  # else scikit-learn warns
        assert found["mean_accuracy"] == pytest.approx(100 * balanced_accuracy_score(true, said))


@pytest.mark.parametrize(("name", "expected"), [("perfect", 100.0), ("all wrong", 0.0)])
def test_the_ends_of_the_scale_are_exact(name: str, expected: float) -> None:
    confusion = Confusion(CLASSES, torch.device("cpu"))
    confusion.add(*case(name))
    assert set(segmentation_metrics(confusion.matrix("the masks")).values()) == {expected}


def test_what_cannot_be_counted_is_told() -> None:
    nothing = Confusion(CLASSES, torch.device("cpu"))
    nothing.add(torch.zeros(1, 2, 2, dtype=torch.int64), torch.full((1, 2, 2), VOID))
    with pytest.raises(BenchError, match="every pixel of the masks is void"):
        nothing.matrix("the masks")
    strange = Confusion(CLASSES, torch.device("cpu"))
    strange.add(torch.zeros(1, 1, 3, dtype=torch.int64), torch.tensor([[[0, 4, 5]]]))
    with pytest.raises(BenchError, match="the masks hold the value 5, beyond the 4 classes"):
        strange.matrix("the masks")
    with pytest.raises(ValueError, match="predictions"):
        strange.add(torch.zeros(1, 2, 2, dtype=torch.int64), torch.zeros(1, 2, 3))


# -------------------------------------------------------------------------------- whole pictures
class Listed(LazyMasks):
    """Masks of their own sizes."""

    def __init__(self, masks: list[Tensor]) -> None:
        self.masks = masks

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, at):  # type: ignore[no-untyped-def]
        return self.masks[at]

    def take(self, index: Tensor) -> Listed:
        return Listed([self.masks[i] for i in index.tolist()])


class Numbered(EvalSplit):
    """A split whose pictures hold their position; the ones in `broken` cannot be decoded."""

    def __init__(self, masks: Tensor | LazyMasks | None, side: int = 8, broken: int = -1) -> None:
        images = MemoryImages(
            torch.zeros(4 if masks is None else len(masks), 3, side, side, dtype=torch.uint8)
        )
        self.split = Split("test", images, "digest", semantic=masks)
        names = tuple(f"class{number}" for number in range(CLASSES - 1))
        self.info = DataInfo("fake", "0", side, names, 1, (0.5,) * 3, (0.5,) * 3)  # type: ignore[arg-type]
        self.device, self.broken = torch.device("cpu"), broken

    @property
    def labels(self) -> Tensor:
        raise AssertionError("there are none")

    def features(
        self,
        encoder: Encoder,
        layers: Sequence[str] = ("output",),
        *,
        max_dim: int = 2048,
        view: View | None = None,
        copies: int = 1,
    ) -> dict[str, Tensor]:
        raise AssertionError("pictures are asked for")

    def batches(
        self, order: Iterable[Tensor], view: View | None = None, *name: str | int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for index in order:
            kept = index[index != self.broken]
            yield kept, kept.float()[:, None, None, None].expand(-1, 3, 8, 8)


@pytest.mark.parametrize("broken", [-1, 2])
@pytest.mark.parametrize("lazy", [True, False])
def test_scores_are_resized_to_each_masks_own_shape(lazy: bool, broken: int) -> None:
    rng = torch.Generator().manual_seed(1)
    shapes = [(13, 20), (20, 13), (13, 20), (8, 8), (30, 7)] if lazy else [(8, 8)] * 5
    masks = [torch.randint(CLASSES, shape, generator=rng).to(torch.uint8) for shape in shapes]
    masks[3][:] = VOID
    coarse = torch.randn(5, CLASSES, 4, 4, generator=rng)

    matrix = pixel_confusion(
        Numbered(Listed(masks) if lazy else torch.stack(masks), broken=broken),
        VIEW,
        lambda x: coarse[x[:, 0, 0, 0].long()],
        classes=CLASSES,
        batch_size=3,
    )
    true, said = [], []
    for number, mask in enumerate(masks):
        if number == broken:
            continue
        full = torch.nn.functional.interpolate(
            coarse[number][None].double(), mask.shape, mode="bilinear", align_corners=False
        )
        true.append(mask.flatten()[mask.flatten() != VOID])
        said.append(full[0].argmax(0).flatten()[mask.flatten() != VOID])
    expected = confusion_matrix(torch.cat(true), torch.cat(said), labels=range(CLASSES))
    assert np.array_equal(matrix.numpy(), expected)


def test_perfect_scores_of_any_shape_score_everything() -> None:
    rng = torch.Generator().manual_seed(2)
    shapes = [(13, 20), (20, 13), (8, 8)]
    masks = [torch.randint(CLASSES, shape, generator=rng) for shape in shapes]
    scores = [torch.nn.functional.one_hot(mask, CLASSES).permute(2, 0, 1).float() for mask in masks]
    split = Numbered(Listed([mask.to(torch.uint8) for mask in masks]))
    matrix = pixel_confusion(
        split, VIEW, lambda x: scores[int(x[0, 0, 0, 0])][None], classes=CLASSES, batch_size=1
    )
    assert segmentation_metrics(matrix)["mIoU"] == 100


def test_training_masks_are_the_pixels_at_the_centres() -> None:
    mask = torch.arange(4 * 6).view(4, 6) % CLASSES
    expected = torch.tensor([[mask[1, 1], mask[1, 4]], [mask[3, 1], mask[3, 4]]])
    split = Numbered(Listed([mask.to(torch.uint8)]))
    assert torch.equal(masks_at(split, 2, CLASSES)[0], expected.to(torch.uint8))
    large = torch.nn.functional.interpolate(mask[None, None].float(), (9, 5), mode="nearest-exact")
    square = torch.nn.functional.interpolate(mask[None, None].float(), (9, 9), mode="nearest-exact")
    assert large.shape != square.shape
    assert torch.equal(masks_at(split, 9, CLASSES)[0].float(), square[0, 0])


def test_unfit_masks_are_refused() -> None:
    good = torch.zeros(4, 8, 8, dtype=torch.uint8)
    bad = good.clone()
    bad[1, 2, 3] = CLASSES
    cases: dict[str, Tensor | LazyMasks | None] = {
        "masks of the test split of fake are 6 x 8 px, its pictures 8 x 8 px": good[:, :6],
        "hold the value 5, beyond the 4 classes": bad,
        "the test split of fake has no masks": None,
    }
    for message, masks in cases.items():
        with pytest.raises(BenchError, match=message):
            masks_at(Numbered(masks), 8, CLASSES)
        with pytest.raises(BenchError, match=message):
            pixel_confusion(
                Numbered(masks), VIEW, lambda x: torch.zeros(len(x), CLASSES, 1, 1),
                classes=CLASSES, batch_size=2,
            )  # fmt: skip
    with pytest.raises(BenchError, match="hold the value 5"):
        masks_at(Numbered(Listed(list(bad))), 8, CLASSES)
