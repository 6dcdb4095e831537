"""Backbones: shapes, shared weights, and agreement with timm, torchvision and the recipes."""

import json
import subprocess
import sys

import pytest
import timm
import torch
import torchvision
from torch.utils.flop_counter import FlopCounterMode

from bench.api import Backbone
from bench.backbones import build, names
from bench.errors import BenchError


def made(name: str, size: int, **options: object) -> Backbone:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build(name, size, **options)


def pictures(n: int, size: int) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1))


def shapes(backbone: Backbone, size: int) -> dict[str, tuple[int, ...]]:
    with torch.no_grad():
        return {k: tuple(v.shape[1:]) for k, v in backbone.eval().maps(pictures(2, size)).items()}


VIT = ("vit_tiny_patch16_224", {"patch_size": 8, "depth": 4})
EXPECTED = {
    ("small", 32): {
        "stem": (24, 16, 16),
        "stage1": (48, 8, 8),
        "stage2": (96, 4, 4),
        "stage3": (256, 2, 2),
    },
    ("nin3", 32): {"conv1": (96, 16, 16), "conv2": (192, 8, 8), "conv3": (192, 8, 8)},
    # conv1-conv5 of torchvision's AlexNet at 224 px, as the linear probe of RotNet's Table 4 reads.
    ("alexnet", 224): {
        "conv1": (64, 55, 55),
        "conv2": (192, 27, 27),
        "conv3": (384, 13, 13),
        "conv4": (256, 13, 13),
        "conv5": (256, 13, 13),
        "fc6": (4096, 1, 1),
        "fc7": (4096, 1, 1),
    },
    ("resnet18", 32): {
        "act1": (64, 32, 32),
        "layer1": (64, 32, 32),
        "layer2": (128, 16, 16),
        "layer3": (256, 8, 8),
        "layer4": (512, 4, 4),
    },
    ("test_resnet", 96): {
        "act1": (32, 48, 48),
        "layer1": (32, 24, 24),
        "layer2": (48, 12, 12),
        "layer3": (192, 6, 6),
        "layer4": (96, 3, 3),
    },
    ("convnext_atto", 64): {
        "stages_0": (40, 16, 16),
        "stages_1": (80, 8, 8),
        "stages_2": (160, 4, 4),
        "stages_3": (320, 2, 2),
    },
}


@pytest.mark.parametrize(("name", "size"), EXPECTED)
def test_maps_have_the_expected_layers_in_order(name: str, size: int) -> None:
    backbone = made(name, size)
    found = shapes(backbone, size)
    assert list(found.items()) == list(EXPECTED[name, size].items())
    assert backbone.layers == tuple(found)


@pytest.mark.parametrize("size", [32, 33, 48, 64, 96])
def test_small_takes_any_size(size: int) -> None:
    assert shapes(made("small", size), size).keys() == {"stem", "stage1", "stage2", "stage3"}


def test_small_is_about_10_mflop() -> None:
    with FlopCounterMode(display=False) as counter:
        made("small", 32).eval()(pictures(1, 32))
    assert counter.get_total_flops() == pytest.approx(10e6, rel=0.1)


@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn"])
def test_vgg16_taps_the_last_convolution_of_each_stage(name: str) -> None:
    with torch.device("meta"):
        backbone = build(name, 32)
        found = {k: tuple(v.shape[1:]) for k, v in backbone.maps(torch.zeros(2, 3, 32, 32)).items()}
    assert backbone.layers == tuple(found)
    assert list(found.items()) == [
        ("conv1_2", (64, 32, 32)),
        ("conv2_2", (128, 16, 16)),
        ("conv3_3", (256, 8, 8)),
        ("conv4_3", (512, 4, 4)),
        ("conv5_3", (512, 2, 2)),
        ("fc6", (4096, 1, 1)),
        ("fc7", (4096, 1, 1)),
    ]


@pytest.mark.slow
def test_vgg16_agrees_with_timm() -> None:
    backbone = made("vgg16", 32).eval()
    x = pictures(2, 32)
    with torch.no_grad():
        taps, theirs = list(backbone.maps(x).values()), backbone.model.forward_intermediates(x)[1]
        for ours, reference in zip(taps[:5], theirs[:5], strict=True):
            torch.testing.assert_close(ours, reference)
        torch.testing.assert_close(backbone(x), taps[-1].flatten(1))


def test_alexnet_is_torchvisions_with_batch_norm() -> None:
    """Identity batch norms and torchvision's weights give torchvision's features."""
    ours = made("alexnet", 224).eval()
    with torch.random.fork_rng():
        theirs = torchvision.models.alexnet().eval()
    for layer, at in zip(
        ("conv1", "conv2", "conv3", "conv4", "conv5"), (0, 3, 6, 8, 10), strict=True
    ):
        conv = next(m for m in ours.get_submodule(layer) if isinstance(m, torch.nn.Conv2d))
        conv.load_state_dict(theirs.features[at].state_dict())
    for module in ours.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 1e-12
    x = pictures(2, 224)
    with torch.no_grad():
        torch.testing.assert_close(ours.maps(x)["conv5"], theirs.features[:12](x))
        torch.testing.assert_close(ours.pool5(ours.maps(x)["conv5"]), theirs.features(x).flatten(1))


@pytest.mark.parametrize(("name", "blocks"), [("nin3", 3), ("nin4", 4), ("nin5", 5)])
def test_nin_has_the_recipes_size(name: str, blocks: int) -> None:
    """Convolutions without bias and two batch-norm values per channel, counted from the recipe."""
    convs = [(5, 3, 192), (1, 192, 160), (1, 160, 96), (5, 96, 192), (1, 192, 192), (1, 192, 192)]
    convs += [(3, 192, 192), (1, 192, 192), (1, 192, 192)] * (blocks - 2)
    expected = sum(k * k * i * o + 2 * o for k, i, o in convs)
    backbone = made(name, 32)
    assert sum(p.numel() for p in backbone.parameters()) == expected
    assert backbone.dim == 192
    assert all(shape == (192, 8, 8) for k, shape in shapes(backbone, 32).items() if k != "conv1")


def test_nin_pools_after_block_3_on_request() -> None:
    assert shapes(made("nin4", 32, pool_after_3=True), 32)["conv4"] == (192, 4, 4)


@pytest.mark.parametrize(
    ("name", "options"),
    [("small", {}), ("nin4", {}), ("test_resnet", {}), ("test_efficientnet", {})],
)
def test_forward_pools_the_last_map(name: str, options: dict[str, object]) -> None:
    backbone = made(name, 32, **options).eval()
    x = pictures(2, 32)
    with torch.no_grad():
        last = backbone.maps(x)[backbone.layers[-1]]
        if name == "test_efficientnet":  # one more convolution stands between
            last = backbone.model.bn2(backbone.model.conv_head(last))
        torch.testing.assert_close(backbone(x), torch.flatten(last.mean(dim=(2, 3)), 1))


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("small", 32, {}),
        ("nin3", 32, {}),
        ("alexnet", 64, {}),
        ("test_resnet", 32, {}),
        (VIT[0], 32, VIT[1]),
    ],
)
def test_maps_and_forward_train_the_same_weights(
    name: str, size: int, options: dict[str, object]
) -> None:
    backbone = made(name, size, **options)
    x = pictures(4, size)
    backbone(x).square().sum().backward()
    silent = [k for k, p in backbone.named_parameters() if p.grad is None]
    assert not silent, "forward leaves them without a gradient"
    backbone.zero_grad()
    sum(m.square().sum() for m in backbone.maps(x).values()).backward()
    unused = [k for k, p in backbone.named_parameters() if p.grad is None]
    assert not unused, "maps do not reach them"


@pytest.mark.parametrize(
    ("name", "options"), [("convnext_atto", {}), (VIT[0], VIT[1] | {"img_size": 64})]
)
def test_timm_models_keep_timms_features(name: str, options: dict[str, object]) -> None:
    backbone = made(name, 64, **options).eval()
    with torch.random.fork_rng():
        theirs = timm.create_model(name, num_classes=0, **options).eval()
    theirs.load_state_dict(backbone.model.state_dict())
    x = pictures(2, 64)
    with torch.no_grad():
        torch.testing.assert_close(backbone(x), theirs(x), rtol=0, atol=1e-5)
        maps = list(backbone.maps(x).values())
        every = theirs.forward_features(x)
    last = maps[-1].flatten(2).transpose(1, 2) if name == VIT[0] else maps[-1]
    torch.testing.assert_close(last, every[:, 1:] if name == VIT[0] else every, rtol=0, atol=1e-5)


def test_vit_blocks_are_evenly_spaced() -> None:
    """Four of twelve; a network of stages that timm also calls blocks keeps timm's taps."""
    assert made("vit_tiny_patch16_224", 32).layers == ("block3", "block6", "block9", "block12")
    assert made("test_efficientnet", 32).layers[0] != "block1"


def test_tokens_keep_picks_patches_after_their_position() -> None:
    backbone = made(VIT[0], 32, **VIT[1]).eval()
    x = pictures(2, 32)
    every = torch.arange(16).expand(2, -1)
    with torch.no_grad():
        full = backbone.tokens(x)
        assert full.shape == (2, 1 + 16, backbone.dim)
        torch.testing.assert_close(full, backbone.model.forward_features(x))
        torch.testing.assert_close(backbone.tokens(x, every), full)
        # A transformer is blind to the order of its tokens: positions must travel with patches.
        torch.testing.assert_close(
            backbone.tokens(x, every.flip(1))[:, 1:], full[:, 1:].flip(1), rtol=0, atol=1e-4
        )
        keep = torch.tensor([[3, 7, 1], [15, 0, 2]])
        part = backbone.tokens(x, keep)
        assert part.shape == (2, 4, backbone.dim)
        changed = x.clone()
        changed[0, :, :8, :8] = 0  # patch 0: dropped in the first picture, kept in the second
        changed[1, :, :8, :8] = 0
        after = backbone.tokens(changed, keep)
    torch.testing.assert_close(after[0], part[0])
    assert not torch.allclose(after[1], part[1])


def test_vit_takes_other_crops_than_it_was_built_for() -> None:
    backbone = made(VIT[0], 32, **VIT[1]).eval()
    assert backbone(pictures(2, 16)).shape == (2, backbone.dim)


def test_networks_without_tokens_say_so() -> None:
    for name in ("small", "test_resnet"):
        with pytest.raises(NotImplementedError, match="vision transformer"):
            made(name, 32).tokens(pictures(1, 32))


@pytest.mark.parametrize("name", ["test_resnet", "resnet18d"])
def test_resnets_get_the_small_stem_up_to_64_px(name: str) -> None:
    small, large = made(name, 64), made(name, 65)
    assert small.model.conv1.kernel_size == (3, 3)
    assert small.model.conv1.stride == (1, 1)
    assert isinstance(small.model.maxpool, torch.nn.Identity)
    assert small.notes
    assert not large.notes
    assert isinstance(large.model.maxpool, torch.nn.MaxPool2d)
    assert isinstance(made(name, 32, stem="own").model.maxpool, torch.nn.MaxPool2d)


def test_building_is_decided_by_the_callers_seed() -> None:
    first, second = made("small", 32), made("small", 32)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "size", "options", "says"),
    [
        ("smal", 32, {}, "did you mean small"),
        ("resnet_18", 32, {}, "resnet18"),
        ("qqqqqqqqqqqq", 32, {}, "bench list"),
        ("small", 0, {}, "at least 1 pixel"),
        ("small", 32, {"depth": 3}, "no option 'depth'"),
        ("small", 32, {"pretrained": True}, "no pretrained weights"),
        ("alexnet", 32, {}, "at least 64 px"),
        ("vgg16", 16, {}, "at least 32 px"),
        ("nin4", 32, {"blocks": 2}, "no option 'blocks'"),
        ("resnet18", 32, {"wdith": 3}, "wdith"),
        ("resnet18", 32, {"stem": "big"}, '"small"'),
        ("convnext_atto", 32, {"stem": "small"}, "not a ResNet"),
        ("vit_tiny_patch16_224", 40, {}, "patch_size"),
        ("convnext_atto", 8, {}, "cannot take pictures of 8 px"),
        ("resnet18.nonsense", 32, {}, "nonsense"),
        ("resnet200", 32, {"pretrained": True}, "no pretrained weights"),
    ],
)
def test_bad_requests_are_told_in_one_line(
    name: str, size: int, options: dict[str, object], says: str
) -> None:
    with pytest.raises(BenchError) as caught:
        made(name, size, **options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_closed_network_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed() -> None:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.get_session", closed)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    with pytest.raises(BenchError, match=r"could not download .* resnet18 .*--weights"):
        made("resnet18", 224, pretrained=True)


def test_names_are_listed_without_torch() -> None:
    code = (
        "import json, sys; from bench.backbones import names; "
        "print(json.dumps([names(), 'torch' in sys.modules or 'timm' in sys.modules]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    listed, heavy = json.loads(out.stdout)
    assert listed == names()
    assert not heavy
    assert "vit_tiny_patch16_224" in list(listed.values())[-1]


def test_every_listed_name_builds() -> None:
    with torch.device("meta"):
        for name in list(names())[:-1]:
            assert isinstance(build(name, 64), Backbone)
