"""CLIP and SigLIP: towers and losses against open_clip's, the learnt scale, bad input."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.loss import ClipLoss, SigLipLoss
from open_clip.model import CLIPTextCfg, _build_text_tower
from open_clip.transformer import TextTransformer
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from bench import cli, conformance, registry, resolve, runner
from bench.api import ImageTextEncoder, Method
from bench.data import catalog
from bench.data.text import detokenize, tokenize
from bench.errors import BenchError
from bench.nn.image_text import ImageText
from bench.nn.text_tower import TextTower, named_text_tower
from bench.progress import Reporter
from bench.resolve import method_config

NAMES = ("clip", "siglip")
CAPTIONS = ["a cat", "On a wavy purple surface, a person in white", "a small red boat at night"]


def built(name: str) -> ImageText:
    method = conformance.build(registry.method(name), name)
    assert isinstance(method, ImageText)
    return method


def padded(tokens: Tensor) -> Tensor:
    return torch.nn.functional.pad(tokens, (0, 77 - tokens.shape[1]))


# --------------------------------------------------------------------------------- the text tower
def test_text_tower_is_open_clips_without_the_padding() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ours = TextTower(width=32, heads=4, layers=3, output=16)
    theirs = TextTransformer(width=32, heads=4, layers=3, output_dim=16)
    weights = dict(ours.transformer.state_dict())
    theirs.load_state_dict(weights | {"text_projection": ours.projector.weight.T})
    tokens = tokenize(CAPTIONS)
    expected = theirs(padded(tokens))
    torch.testing.assert_close(ours(tokens), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours(padded(tokens)), expected, rtol=1e-5, atol=1e-6)


def test_named_tower_is_the_text_side_of_that_open_clip_model() -> None:
    name = "ViT-B-32-quickgelu"
    ours = named_text_tower(name, output=16)
    config = CLIPTextCfg(**open_clip.get_model_config(name)["text_cfg"])
    theirs = _build_text_tower(16, config, quick_gelu=True)
    weights = dict(ours.transformer.state_dict())
    theirs.load_state_dict(weights | {"text_projection": ours.projector.weight.T})
    tokens = tokenize(CAPTIONS[:2])
    torch.testing.assert_close(ours(tokens), theirs(padded(tokens)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-B32", "no text model called 'ViT-B32'; did you mean .*ViT-B-32"),
        ("ViT-B-16-SigLIP", "does not read CLIP's tokens"),
        ("roberta-ViT-B-32", "does not read CLIP's tokens"),
        ("coca_ViT-B-32", "CLIP's transformer; choose one that does, such as ViT-B-32"),
    ],
)
def test_an_unknown_or_other_text_model_is_one_line(name: str, message: str) -> None:
    cls = registry.method("clip")
    cfg = method_config(cls, "clip", "small", {"text_model": name})
    with pytest.raises(BenchError, match=message) as error:
        cls(cfg, built("clip").backbone, conformance.toy_info())
    assert "\n" not in str(error.value)


# ----------------------------------------------------------------------------------------- losses
def in_double(name: str) -> tuple[ImageText, Tensor, Tensor, Tensor]:
    """A method in float64, its loss of one batch, and the unit embeddings of the batch."""
    method = built(name).double().eval()
    batch = conformance.memorised(method)
    batch.views = {"crop": [batch.view("crop").double()]}
    loss = method.loss(batch, conformance.step_at("main", 0))
    image, text = (normalize(rows, dim=1) for rows in method.embed(batch))
    return method, loss, image, text


def check_gradients(method: Method, ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    names, parameters = zip(*method.named_parameters(), strict=True)
    one = torch.autograd.grad(ours, parameters)
    other = torch.autograd.grad(theirs, parameters)
    for name, a, b in zip(names, one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-12, msg=name)


def test_clips_loss_is_open_clips_with_all_gradients() -> None:
    method, loss, image, text = in_double("clip")
    assert method.log_scale.item() == pytest.approx(math.log(1 / 0.07))
    check_gradients(method, loss, ClipLoss()(image, text, method.log_scale.exp()))


def test_siglips_loss_is_open_clips_with_all_gradients() -> None:
    method, loss, image, text = in_double("siglip")
    assert isinstance(method.bias, torch.nn.Parameter)
    assert (method.log_scale.item(), method.bias.item()) == (pytest.approx(math.log(10)), -10)
    check_gradients(method, loss, SigLipLoss()(image, text, method.log_scale.exp(), method.bias))


def test_the_scale_of_clip_is_capped_and_that_of_siglip_is_not() -> None:
    for name, expected in (("clip", math.log(100)), ("siglip", 5.0)):
        method = built(name)
        for start, after in ((5.0, expected), (2.0, 2.0)):
            with torch.no_grad():
                method.log_scale.fill_(start)
            method.after_step(conformance.step_at("main", 0))
            assert method.log_scale.item() == pytest.approx(after)


def test_what_is_logged_tells_matches_and_a_collapse() -> None:
    method = built("clip").eval()
    batch, step = conformance.memorised(method), conformance.step_at("main", 0)
    method.loss(batch, step)
    image, text = (normalize(rows, dim=1) for rows in method.embed(batch))
    cosine = (image @ text.T).tolist()
    there = sum(row.index(max(row)) == i for i, row in enumerate(cosine))
    back = sum(max(range(16), key=lambda j: cosine[j][i]) == i for i in range(16))
    assert step.logged["image_to_text_top1"].item() == pytest.approx(100 * there / 16)
    assert step.logged["text_to_image_top1"].item() == pytest.approx(100 * back / 16)
    assert step.logged["scale"].item() == pytest.approx(1 / 0.07)
    assert step.logged["embedding_std"] > 0.2
    constant = torch.nn.Linear(method.backbone.dim, image.shape[1])
    constant.weight.data.zero_()
    method.projector = constant
    method.loss(batch, step)
    assert step.logged["embedding_std"] < 1e-3


# --------------------------------------------------------------------------------------- afterwards
@pytest.mark.parametrize("name", NAMES)
def test_the_encoder_is_the_backbone_with_both_embeddings_beside_it(name: str) -> None:
    method = built(name).eval()
    encoder = method.encoder()
    assert isinstance(encoder, ImageTextEncoder)
    batch = conformance.memorised(method)
    x = batch.view("crop")
    image, text = method.embed(batch)
    assert torch.equal(encoder(x), method.backbone(x))
    assert torch.equal(encoder.embed_image(x), image)
    assert batch.text is not None
    assert torch.equal(encoder.embed_text(batch.text), text)
    assert encoder.scale == pytest.approx(method.log_scale.exp().item())


def test_the_picture_gives_the_nearest_caption(monkeypatch: pytest.MonkeyPatch) -> None:
    method = built("clip").eval()
    batch = conformance.memorised(method)
    batch.text = tokenize([f"caption number {i}" for i in range(16)])
    image = torch.eye(16)[[1, *range(1, 16)]]  # the first picture takes the second one's caption
    monkeypatch.setattr(method, "embed", lambda batch: (image, 3 * torch.eye(16)))
    panels = method.picture(batch, conformance.step_at("main", 0))
    assert [len(panel.tiles) for panel in panels] == [8, 8]
    captions = [caption.replace("\n", " ") for panel in panels for caption in panel.captions]
    assert captions == detokenize(batch.text[[1, *range(1, 16)]])
    assert [ok for panel in panels for ok in panel.good] == [False] + 15 * [True]


def test_colours_are_told_from_prompts_after_training_on_a_folder(
    tmp_path: Path, results: Path
) -> None:
    """All of it: captions from files, training, and classes from prompts, well above chance."""
    draw = np.random.default_rng(0)
    for number, (name, colour) in enumerate(
        {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220)}.items()
    ):
        (tmp_path / "colours" / name).mkdir(parents=True)
        for i in range(30):
            noisy = draw.normal(colour, 25, (16, 16, 3)).clip(0, 255).astype(np.uint8)
            path = tmp_path / "colours" / name / f"{number}{i}.png"
            Image.fromarray(noisy).save(path)
            path.with_suffix(".txt").write_text(f"a photo of something {name}, number {i}")
    data = catalog.load(f"imagefolder:{tmp_path / 'colours'}")
    sets = ["method.epochs=12", "method.batch_size=24", "method.text_width=32"]
    resolved = resolve.resolve(
        method="clip",
        protocol="zeroshot",
        data="colours",
        size=16,
        backbone=None,
        seed=0,
        recipe="small",
        overrides=resolve.parse_sets([*sets, "engine.device=cpu"]),
    )
    made = runner.run(resolved, data, results, Reporter(quiet=True)).record
    assert made.metrics["top1"] > 60
    assert made.predictions is not None


# ---------------------------------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 1}, "a batch of one has no other caption"),
        ({"text_heads": 5}, "text_width 64 is no multiple of text_heads 5"),
        ({"temperature": 0}, "greater than 0"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_bad_settings_are_one_line(name: str, wrong: dict[str, object], message: str) -> None:
    with pytest.raises(BenchError, match=message) as error:
        method_config(registry.method(name), name, "small", wrong)
    assert "\n" not in str(error.value)


def test_a_data_set_without_text_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", "-m", "clip", "-p", "zeroshot", "--data", "digits"]
    monkeypatch.setattr(sys, "argv", ["bench", *command])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    assert "error: method clip needs text; digits has none" in capsys.readouterr().err


def test_embeddings_of_prompts_do_not_depend_on_their_neighbours() -> None:
    """A prompt shorter than the longest of its batch is padded, which must not be seen."""
    text = built("clip").eval().text
    together = text(tokenize(CAPTIONS))
    alone = torch.cat([text(tokenize([caption])) for caption in CAPTIONS])
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-6)
