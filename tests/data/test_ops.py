"""Every operation against torchvision: on the same parameters, and in what it draws."""

import itertools

import pydantic
import pytest
import torch
from scipy.stats import ks_2samp
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from bench.data import ops
from bench.data.ops.randaugment import NAMES
from bench.rng import generator

N = 24
DRAWS = 2000
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def smooth(*shape: int) -> Tensor:
    """Pictures in [0, 1] with flat, black, white and saturated regions."""
    coarse = torch.rand(*shape[:2], 5, 6, generator=generator("pictures", *shape))
    fine = torch.nn.functional.interpolate(coarse, size=shape[2:], mode="bicubic")
    return ((fine - 0.5) * 1.4 + 0.5).clamp(0, 1)


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    return smooth(N, 3, 32, 40)


def draw(op, x, seed=0, aspect=None):
    size = (x.shape[2], x.shape[3])
    return op.sample(len(x), generator("ops", seed), size, aspect)


def draws(op, size, seed=0, aspect=None, n=DRAWS):
    return op.sample(n, generator("draws", seed), size, aspect)


def one_by_one(function, x, *params):
    """`function(picture, *its parameters)` of every picture, parameters as plain numbers."""
    rows = zip(x, *(p.tolist() for p in params), strict=True)
    return torch.stack([function(*row) for row in rows])


def window(params):
    return [params[name] for name in ("top", "left", "height", "width")]


def same_distribution(ours, theirs):
    return ks_2samp(ours, theirs).pvalue > 1e-3


# --------------------------------------------------------------------------------- crops and flips
@pytest.mark.parametrize("out", [(32, 40), (20, 17), (64, 90)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.01, 0.05)])
def test_crops_are_resampled_as_by_torchvision(pictures, out, scale):
    op = ops.RandomResizedCrop(scale=scale)
    params = draw(op, pictures)

    def resized_crop(picture, *box):
        return F.resized_crop(picture, *map(round, box), size=list(out), antialias=True)

    expected = one_by_one(resized_crop, pictures, *window(params))
    torch.testing.assert_close(op.cut(pictures, params, out), expected, atol=1e-5, rtol=0)

    stored = (pictures * 255).byte()
    expected = one_by_one(resized_crop, stored, *window(params))
    difference = op.cut(stored, params, out) * 255 - expected
    assert difference.abs().max() <= 2


def test_flip_within_a_crop_mirrors_its_result(pictures):
    op = ops.RandomResizedCrop()
    params = draw(op, pictures)
    flip = torch.arange(N) % 3 == 0
    plain = op.cut(pictures, params, (24, 24))
    mirrored = op.cut(pictures, params | {"flip": flip}, (24, 24))
    expected = ops.HorizontalFlip().apply(plain, {"flip": flip})
    torch.testing.assert_close(mirrored, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("size", "scale", "ratio"),
    [
        ((32, 32), (0.08, 1.0), (3 / 4, 4 / 3)),
        ((96, 64), (0.2, 1.0), (0.5, 2.0)),
        ((32, 96), (0.8, 1.0), (3 / 4, 4 / 3)),  # often falls back: too wide for the ratio
        ((96, 32), (0.8, 1.0), (3 / 4, 4 / 3)),  # and too tall
    ],
)
def test_random_resized_crop_draws_as_torchvision(size, scale, ratio):
    theirs = v2.RandomResizedCrop(32, scale=scale, ratio=ratio)
    picture = torch.zeros(3, *size)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        rows = [theirs.make_params([picture]) for _ in range(DRAWS)]
    expected = [torch.tensor([row[k] for row in rows]) for k in ("top", "left", "height", "width")]
    found = window(draws(ops.RandomResizedCrop(scale=scale, ratio=ratio), size))
    for ours, reference in zip(found, expected, strict=True):
        assert same_distribution(ours, reference)
    height, width = found[2:], expected[2:]
    assert same_distribution(height[0] * height[1], width[0] * width[1])
    assert same_distribution(height[1] / height[0], width[1] / width[0])


def test_random_resized_crop_of_squashed_pictures_draws_in_their_true_shape():
    op = ops.RandomResizedCrop(scale=(0.3, 1.0))
    for aspect, true in ((2.0, (48, 96)), (0.5, (96, 48))):
        squashed = window(draws(op, (48, 48), aspect=torch.full((DRAWS,), aspect)))
        wide = window(draws(op, true, seed=1))
        for ours, reference, axis in zip(squashed, wide, (0, 1, 0, 1), strict=True):
            assert same_distribution(ours / 48 * true[axis], reference)


def test_center_crop_of_224_from_256():
    x = torch.rand(2, 3, 256, 256, generator=generator("large"))
    op = ops.CenterCrop(fraction=0.875)
    torch.testing.assert_close(
        op.cut(x, draw(op, x), (224, 224)), F.center_crop(x, [224, 224]), atol=1e-5, rtol=0
    )
    expected = F.resize(F.center_crop(x, [224, 224]), [64, 64], antialias=True)
    torch.testing.assert_close(op.cut(x, draw(op, x), (64, 64)), expected, atol=1e-5, rtol=0)


def test_center_crop_is_square_in_the_true_shape():
    op = ops.CenterCrop(fraction=0.75)
    params = draws(op, (64, 64), aspect=torch.tensor([2.0, 0.5]), n=2)
    expected = torch.tensor([[8, 20, 48, 24], [20, 8, 24, 48]]).float()
    torch.testing.assert_close(torch.stack(window(params), 1), expected)


def test_resize_is_torchvisions(pictures):
    op = ops.Resize()
    for out in ((12, 15), (50, 41)):
        expected = F.resize(pictures, list(out), antialias=True)
        found = op.cut(pictures, draw(op, pictures), out)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("mode", "theirs"), [("zero", "constant"), ("reflect", "reflect")])
def test_random_crop_pads_and_crops(pictures, mode, theirs):
    op = ops.RandomCrop(padding=6, mode=mode)
    params = draw(op, pictures)

    def crop(picture, top, left, height, width):
        padded = F.pad(picture, [6], padding_mode=theirs)
        return F.crop(padded, round(top) + 6, round(left) + 6, round(height), round(width))

    expected = one_by_one(crop, pictures, *window(params))
    torch.testing.assert_close(op.apply(pictures.clone(), params), expected, atol=1e-5, rtol=0)


def test_random_crop_draws_every_place_equally():
    params = draws(ops.RandomCrop(padding=4), (32, 32), n=9000)
    for name in ("top", "left"):
        counts = torch.stack([(params[name] == place).sum() for place in range(-4, 5)])
        assert counts.sum() == 9000 and (counts - 1000).abs().max() < 130
    params = draws(ops.RandomCrop(padding=0, fraction=0.875), (256, 256))
    assert params["height"].eq(224).all() and params["top"].min() == 0
    assert params["top"].max() == 32


def test_horizontal_flip(pictures):
    op = ops.HorizontalFlip(p=0.3)
    params = draw(op, pictures)
    expected = one_by_one(
        lambda x, flip: F.horizontal_flip(x) if flip else x, pictures, params["flip"]
    )
    assert op.apply(pictures.clone(), params).equal(expected)
    assert abs(draws(op, (8, 8))["flip"].float().mean() - 0.3) < 0.03


# ------------------------------------------------------------------------------------------ colour
def test_color_jitter_applies_its_parts_in_each_pictures_order(pictures):
    op = ops.ColorJitter(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.5, p=0.9)
    params = draw(op, pictures)
    params["order"] = torch.tensor(list(itertools.permutations(range(4))))  # all 24
    still = {"factor": torch.ones(3), "hue": torch.zeros(())}  # where the jitter is not applied
    drawn = {
        k: torch.where(params["applied"].view(-1, *[1] * v.ndim), params[k], v)
        for k, v in still.items()
    }
    parts = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)

    def jitter(picture, order, factor, hue):
        for part in order:
            picture = parts[part](picture, [*factor, hue][part])
        return picture

    expected = one_by_one(jitter, pictures, params["order"], drawn["factor"], drawn["hue"])
    torch.testing.assert_close(op.apply(pictures.clone(), params), expected, atol=1e-5, rtol=0)


def test_color_jitter_draws_as_torchvision():
    settings = {"brightness": 1.4, "contrast": (0.3, 0.7), "saturation": 0.8, "hue": 0.2}
    theirs = v2.ColorJitter(**settings)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        rows = [theirs.make_params([]) for _ in range(DRAWS)]
    params = draws(ops.ColorJitter(**settings), (8, 8))
    found = [*params["factor"].unbind(1), params["hue"]]
    names = ("brightness", "contrast", "saturation", "hue")
    for ours, name in zip(found, names, strict=True):
        assert same_distribution(ours, [row[f"{name}_factor"] for row in rows])
    code = params["order"] @ torch.tensor([64, 16, 4, 1])
    counts = code.unique(return_counts=True)[1]
    assert len(counts) == 24 and (counts - DRAWS / 24).abs().max() < 40


def test_color_jitter_leaves_the_share_that_is_not_chosen(pictures):
    op = ops.ColorJitter(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, p=0.7)
    assert abs(draws(op, (8, 8))["applied"].float().mean() - 0.7) < 0.03
    params = draw(op, pictures)
    still = ~params["applied"]
    assert 0 < still.sum() < N
    assert op.apply(pictures.clone(), params)[still].equal(pictures[still])


def test_grey_pictures_have_no_hue_to_shift(pictures):
    gray = pictures.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    op = ops.ColorJitter(hue=0.5)
    torch.testing.assert_close(op.apply(gray, draw(op, gray)), gray)


@pytest.mark.parametrize(
    ("op", "theirs"),
    [
        (ops.Grayscale(p=0.4), lambda x: F.rgb_to_grayscale(x, 3)),
        (ops.Solarize(threshold=0.3, p=0.4), lambda x: F.solarize(x, 0.3)),
    ],
    ids=["grayscale", "solarize"],
)
def test_chosen_pictures_change_as_by_torchvision(pictures, op, theirs):
    params = draw(op, pictures)
    expected = one_by_one(lambda x, on: theirs(x) if on else x, pictures, params["applied"])
    torch.testing.assert_close(op.apply(pictures.clone(), params), expected, atol=1e-5, rtol=0)
    assert abs(draws(op, (8, 8))["applied"].float().mean() - 0.4) < 0.03


@pytest.mark.parametrize(("kernel", "side"), [(None, 3), (9, 9), (23, 23)])
def test_gaussian_blur(pictures, kernel, side):
    op = ops.GaussianBlur(kernel=kernel, p=0.6)
    params = draw(op, pictures)

    def blur(picture, on, sigma):
        return F.gaussian_blur(picture, [side, side], [sigma, sigma]) if on else picture

    expected = one_by_one(blur, pictures, params["applied"], params["sigma"])
    torch.testing.assert_close(op.apply(pictures.clone(), params), expected, atol=1e-5, rtol=0)


def test_gaussian_blur_draws_as_torchvision():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = v2.GaussianBlur(9, (0.3, 1.5))
        expected = [theirs.make_params([])["sigma"][0] for _ in range(DRAWS)]
    params = draws(ops.GaussianBlur(sigma=(0.3, 1.5), p=0.2), (8, 8))
    assert same_distribution(params["sigma"], expected)
    assert abs(params["applied"].float().mean() - 0.2) < 0.03


def test_normalize(pictures):
    found = ops.Normalize(mean=MEAN, std=STD).apply(pictures.clone(), {})
    torch.testing.assert_close(found, F.normalize(pictures, MEAN, STD), atol=1e-5, rtol=0)


# --------------------------------------------------------------------------- cutout and RandAugment
def test_cutout_erases_squares_over_the_border(pictures):
    op = ops.Cutout(size=16, p=0.8)
    params = draw(op, pictures)

    def erase(picture, on, top, left):
        y, x = max(0, round(top)), max(0, round(left))
        height, width = round(top) + 16 - y, round(left) + 16 - x
        return F.erase(picture, y, x, height, width, torch.zeros(())) if on else picture

    expected = one_by_one(erase, pictures, params["applied"], params["top"], params["left"])
    assert op.apply(pictures.clone(), params).equal(expected)
    spread = draws(op, (32, 40))
    assert spread["top"].unique().tolist() == list(range(-8, 24))
    assert spread["left"].unique().tolist() == list(range(-8, 32))


def reference(name: str, x: Tensor, share: float, sign: float) -> Tensor:
    """One of RandAugment's operations, by torchvision's functions, at a share of full magnitude."""
    amount = 0.9 * share * sign
    still = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    degrees = torch.tensor(0.3 * share * sign).atan().rad2deg().item()
    reach = [int(150 / 331 * side * share * sign) for side in (x.shape[2], x.shape[1])]
    return {
        "Identity": lambda: x,
        "ShearX": lambda: F.affine(x, **still | {"shear": [degrees, 0.0], "center": [0, 0]}),
        "ShearY": lambda: F.affine(x, **still | {"shear": [0.0, degrees], "center": [0, 0]}),
        "TranslateX": lambda: F.affine(x, **still | {"translate": [reach[0], 0]}),
        "TranslateY": lambda: F.affine(x, **still | {"translate": [0, reach[1]]}),
        "Rotate": lambda: F.rotate(x, 30 * share * sign),
        "Brightness": lambda: F.adjust_brightness(x, 1 + amount),
        "Color": lambda: F.adjust_saturation(x, 1 + amount),
        "Contrast": lambda: F.adjust_contrast(x, 1 + amount),
        "Sharpness": lambda: F.adjust_sharpness(x, 1 + amount),
        "Posterize": lambda: F.posterize(x, 8 - round(4 * share)),
        "Solarize": lambda: F.solarize(x, 1 - share),
        "AutoContrast": lambda: F.autocontrast(x),
        "Equalize": lambda: F.equalize(x),
    }[name]()


@pytest.mark.parametrize("magnitude", [9, 30])
def test_randaugment_applies_torchvisions_operations(pictures, magnitude):
    op = ops.RandAugment(n=1, magnitude=magnitude)
    which = torch.arange(2 * len(NAMES)) // 2
    sign = torch.tensor([-1.0, 1.0]).repeat(len(NAMES))
    x = smooth(len(which), 3, 32, 40)
    found = op.apply(x.clone(), {"op": which[:, None], "sign": sign[:, None]})
    for i, name in enumerate(NAMES[k] for k in which):
        expected = reference(name, x[i], magnitude / 30, sign[i].item())
        # The nearest pixel of a place halfway between two is a matter of rounding.
        wrong = ((found[i] - expected).abs() > 1e-5).float().mean()
        assert wrong <= (0.01 if name in NAMES[1:6] else 0), name


def test_randaugment_applies_its_operations_in_turn(pictures):
    op = ops.RandAugment(n=3, magnitude=12)
    params = draw(op, pictures)
    found = op.apply(pictures.clone(), params)
    step = ops.RandAugment(n=1, magnitude=12)
    expected = pictures.clone()
    for i in range(3):
        one = {name: drawn[:, i : i + 1] for name, drawn in params.items()}
        expected = step.apply(expected, one)
    assert found.equal(expected)


def test_randaugment_draws_every_operation_and_sign_equally():
    params = draws(ops.RandAugment(n=2), (8, 8), n=7000)
    counts = params["op"].flatten().bincount(minlength=len(NAMES))
    assert (counts - 1000).abs().max() < 130
    assert params["sign"].unique().tolist() == [-1, 1] and params["sign"].mean().abs() < 0.03


# ------------------------------------------------------------------------------------------ all
EVERY = (
    ops.RandomResizedCrop(scale=(0.2, 1.0)),
    ops.RandomCrop(padding=3, mode="reflect"),
    ops.CenterCrop(),
    ops.Resize(),
    ops.HorizontalFlip(),
    ops.ColorJitter(brightness=0.4, contrast=(0.5, 1.5), saturation=0.4, hue=0.1, p=0.8),
    ops.Grayscale(),
    ops.GaussianBlur(),
    ops.Solarize(),
    ops.Cutout(size=8),
    ops.RandAugment(),
    ops.Normalize(mean=MEAN, std=STD),
)


@pytest.mark.parametrize("op", EVERY, ids=lambda op: type(op).__name__)
def test_every_operation(op, pictures):
    state = torch.random.get_rng_state()
    params = draw(op, pictures)
    assert all(len(drawn) == N for drawn in params.values())
    found = op.apply(pictures.clone(), params)  # which it may overwrite
    assert found.shape == pictures.shape and found.dtype == torch.float32
    assert torch.random.get_rng_state().equal(state), "the global generator was used"
    again = draw(op, pictures)
    assert all(drawn.equal(params[name]) for name, drawn in again.items())
    half = op.apply(pictures[:7].clone(), {name: drawn[:7] for name, drawn in params.items()})
    torch.testing.assert_close(half, found[:7])
    assert type(op).model_validate_json(op.model_dump_json()) == op
    # A tensor without values cannot be waited for: applying never asks the device for one.
    meta = op.apply(pictures.to("meta"), {k: v.to("meta") for k, v in params.items()})
    assert meta.shape == pictures.shape


@pytest.mark.parametrize(
    ("op", "settings"),
    [
        (ops.RandomResizedCrop, {"scale": (0.5, 0.1)}),
        (ops.RandomResizedCrop, {"ratio": (0.0, 1.0)}),
        (ops.RandomCrop, {"padding": -1}),
        (ops.RandomCrop, {"mode": "circular"}),
        (ops.CenterCrop, {"fraction": 1.5}),
        (ops.HorizontalFlip, {"p": 2}),
        (ops.ColorJitter, {"brightness": -1}),
        (ops.ColorJitter, {"contrast": (0.9, 0.1)}),
        (ops.ColorJitter, {"hue": 0.6}),
        (ops.GaussianBlur, {"kernel": 8}),
        (ops.GaussianBlur, {"sigma": (0.0, 1.0)}),
        (ops.Cutout, {"size": 0}),
        (ops.RandAugment, {"magnitude": 31}),
        (ops.Normalize, {"mean": MEAN, "std": (0.2, 0.0, 0.2)}),
        (ops.Solarize, {"treshold": 0.5}),
    ],
)
def test_bad_settings_are_refused(op, settings):
    with pytest.raises(pydantic.ValidationError):
        op(**settings)
