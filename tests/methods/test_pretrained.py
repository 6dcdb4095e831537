"""Weights from elsewhere: their normalisation and size, and files that are no weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as tv

from bench import backbones, conformance, rng
from bench.errors import BenchError
from methods.pretrained import Pretrained


def build(weights: Path | None = None, size: int = 48) -> Pretrained:
    cfg = Pretrained.Config(input_size=size, weights=None if weights is None else str(weights))
    backbone = backbones.build("resnet10t", size)
    return Pretrained(cfg, backbone, conformance.toy_info())


def test_the_model_sees_pictures_as_it_was_trained_to() -> None:
    method = build()
    info = conformance.toy_info()
    picture = torch.rand(2, 3, 32, 32, generator=rng.generator("pretrained"))
    encoder = method.encoder().eval()
    with torch.no_grad():
        got = encoder(tv.normalize(picture, info.mean, info.std))
        big = F.interpolate(picture, (48, 48), mode="bicubic", antialias=True)
        cfg = method.backbone.model.pretrained_cfg
        expected = method.backbone.eval()(tv.normalize(big, cfg["mean"], cfg["std"]))
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


def test_a_local_file_is_loaded(tmp_path: Path) -> None:
    source = backbones.build("resnet10t", 48)
    path = tmp_path / "weights.safetensors"
    save_file(source.state_dict(), path)
    method = build(path)
    theirs = source.state_dict()
    assert all(torch.equal(v, theirs[k]) for k, v in method.backbone.state_dict().items())
    assert method.backbone.notes == source.notes


def test_a_truncated_file_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(backbones.build("resnet10t", 48).state_dict(), path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(BenchError, match=str(path)):
        build(path)
