"""Loading weights: every common wrapping is unwrapped, every bad file is one clear line."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from bench.api import Backbone
from bench.backbones import build, load_weights
from bench.errors import BenchError

VIT = "vit_tiny_patch16_224"
OPTIONS = {"patch_size": 8, "depth": 2}


def made(name: str, seed: int, size: int = 32, **options: object) -> Backbone:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build(name, size, **options)


def assert_same(one: Backbone, other: Backbone) -> None:
    theirs = other.state_dict()
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=0, msg=name)


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize("name", ["small", "test_resnet"])
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_round_trip(tmp_path: Path, name: str, suffix: str) -> None:
    source, target = made(name, 0), made(name, 1)
    path = tmp_path / f"weights.{suffix}"
    save = safetensors.torch.save_file if suffix == "safetensors" else torch.save
    save(source.state_dict(), path)
    assert load_weights(target, path) == ()
    assert_same(target, source)


def test_common_wrappings(tmp_path: Path) -> None:
    """The layouts of PyTorch DDP, MoCo, DINO, MAE and Lightning checkpoints."""
    source = made("test_resnet", 0)
    plain = source.model.state_dict()  # as timm itself names them
    other = made("test_resnet", 2).model.state_dict()
    head = {"fc.weight": torch.zeros(10, 96)}
    layouts = {
        "bare": plain | head,
        "ddp": prefixed(plain, "module."),
        "lightning": {"state_dict": prefixed(plain, "backbone."), "epoch": 3},
        "moco": {
            "state_dict": prefixed(plain, "module.encoder_q.")
            | prefixed(other, "module.encoder_k.")
        },
        "dino": {
            "student": prefixed(other, "module.backbone."),
            "teacher": prefixed(plain, "backbone.") | {"head.mlp.weight": torch.zeros(3, 3)},
            "epoch": 7,
        },
        "mae": {"model": plain, "optimizer": {"state": {}}},
    }
    for layout, content in layouts.items():
        path = tmp_path / f"{layout}.pth"
        torch.save(content, path)
        target = made("test_resnet", 1)
        assert load_weights(target, path) == (), layout
        assert_same(target, source)


def test_few_missing_tensors_are_returned(tmp_path: Path) -> None:
    source, target = made("test_resnet", 0), made("test_resnet", 1)
    state = source.model.state_dict()
    del state["layer4.0.bn2.weight"]
    torch.save(state, tmp_path / "w.pt")
    assert load_weights(target, tmp_path / "w.pt") == ("layer4.0.bn2.weight",)


def test_position_embedding_is_resampled_to_the_grid(tmp_path: Path) -> None:
    source, target = made(VIT, 0, 32, **OPTIONS), made(VIT, 1, 64, **OPTIONS)
    torch.save(source.state_dict(), tmp_path / "w.pt")
    assert load_weights(target, tmp_path / "w.pt") == ()
    ours, theirs = target.model.pos_embed, source.model.pos_embed
    assert ours.shape[1] == 1 + 64
    torch.testing.assert_close(ours[:, 0], theirs[:, 0])  # the class token's stays
    small = theirs[0, 1:].detach().T.reshape(1, -1, 4, 4)
    expected = torch.nn.functional.interpolate(small, (8, 8), mode="bicubic", antialias=True)
    torch.testing.assert_close(ours[0, 1:].detach().T.reshape(1, -1, 8, 8), expected)
    torch.testing.assert_close(
        target.model.blocks[0].attn.qkv.weight, source.model.blocks[0].attn.qkv.weight
    )


class Code:
    """Runs when unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('code ran')",))


def bad_file(kind: str, folder: Path) -> Path:
    state = made("small", 0).state_dict()
    path = folder / ("w.safetensors" if kind.startswith("safe") else "w.pt")
    if kind == "code":
        torch.save({"state_dict": state, "extra": Code()}, path)
    elif kind == "text":
        path.write_text("these are not the weights you are looking for")
    elif kind == "empty" or kind == "safe empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        torch.save(state, path)
        path.write_bytes(path.read_bytes()[:-5000])
    elif kind == "safe truncated":
        safetensors.torch.save_file(state, path)
        path.write_bytes(path.read_bytes()[:-5000])
    elif kind == "a number":
        torch.save(3.5, path)
    elif kind == "another network":
        torch.save(made("nin3", 0).state_dict(), path)
    elif kind == "another shape":
        torch.save({name: value[:1] for name, value in state.items() if value.ndim}, path)
    elif kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("code", "code that loading would run"),
        ("text", "not a weights file"),
        ("empty", "not a weights file"),
        ("safe empty", "damaged"),
        ("truncated", "damaged"),
        ("safe truncated", "damaged"),
        ("a number", "holds 0 of"),
        ("another network", "another architecture"),
        ("another shape", "but the backbone's is"),
        ("folder", "no weights file"),
        ("absent", "no weights file"),
    ],
)
def test_bad_files_are_told_in_one_line(tmp_path: Path, kind: str, says: str) -> None:
    target = made("small", 1)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(BenchError) as caught:
        load_weights(target, bad_file(kind, tmp_path))
    assert says in str(caught.value)
    assert "w." in str(caught.value)
    assert "\n" not in str(caught.value)
    for name, value in target.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_imagenet_stem_does_not_fit_the_small_one_silently(tmp_path: Path) -> None:
    torch.save(made("resnet18", 0, 224).state_dict(), tmp_path / "w.pt")
    with pytest.raises(BenchError, match=r'conv1.weight .* stem="own"'):
        load_weights(made("resnet18", 0, 32), tmp_path / "w.pt")
