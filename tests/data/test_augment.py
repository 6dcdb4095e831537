"""The shared augmentation: which operations a setting gives, in SimCLR's order."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from bench import conformance
from bench.data.augment import SMALL_PICTURES, Augmented
from bench.data.ops import ColorJitter, GaussianBlur, RandomResizedCrop, Solarize

INFO = conformance.toy_info()


def names(cfg: Augmented, **changes: float) -> list[str]:
    return [type(op).__name__ for op in cfg.ops(INFO, **changes)]


def test_the_defaults_are_simclrs() -> None:
    cfg = Augmented(epochs=1, batch_size=2)
    assert names(cfg) == [
        "RandomResizedCrop",
        "HorizontalFlip",
        "ColorJitter",
        "Grayscale",
        "GaussianBlur",
        "Normalize",
    ]
    ops = {type(op): op for op in cfg.ops(INFO)}
    jitter, crop, blur = ops[ColorJitter], ops[RandomResizedCrop], ops[GaussianBlur]
    assert isinstance(jitter, ColorJitter) and isinstance(crop, RandomResizedCrop)
    assert isinstance(blur, GaussianBlur)
    strength = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
    assert strength == (0.8, 0.8, 0.8, 0.2) and jitter.p == 0.8
    assert crop.scale == (0.08, 1.0) and blur.p == 0.5 and blur.sigma == (0.1, 2.0)


def test_one_view_may_differ() -> None:
    cfg = Augmented(epochs=1, batch_size=2)
    ops = cfg.ops(INFO, blur=1.0, solarize=0.2)
    assert [op.p for op in ops if isinstance(op, GaussianBlur | Solarize)] == [1.0, 0.2]


def test_what_never_happens_is_left_out() -> None:
    assert "GaussianBlur" not in names(Augmented(epochs=1, batch_size=2, **SMALL_PICTURES))


def test_a_batch_of_one_has_nothing_to_compare() -> None:
    with pytest.raises(ValidationError, match="at least 2 pictures"):
        Augmented(epochs=1, batch_size=1)
