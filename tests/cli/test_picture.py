"""`bench show RUN --picture`, as a user asks for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import image

from bench import cli, picture
from bench.api import Panel
from bench.errors import BenchError

QUICK = ["--data", "digits", "--limit", "256", "--epochs", "1", "--batch-size", "32"]


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["bench", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code


def test_a_finished_run_shows_its_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command(monkeypatch, "run", "-m", "rotnet", "-m", "random_init", "-p", "knn", *QUICK)
    (path,) = tmp_path.glob("results/knn/*/rotnet/*.json")
    for name in ("one.png", "two.png"):
        command(monkeypatch, "show", str(path), "--picture", "--out", name)
    one, two = (tmp_path / name for name in ("one.png", "two.png"))
    assert one.read_bytes() == two.read_bytes(), "the same run gave another picture"
    pixels = image.imread(one)
    assert pixels.shape[1] > 1000 and np.ptp(pixels[..., :3]) > 0.9

    (path,) = tmp_path.glob("results/knn/*/random_init/*.json")
    capsys.readouterr()
    for arguments, fault in (
        ([str(path), "--picture"], "random_init learns nothing from pictures"),
        (["one.png"], "one.png"),
    ):
        monkeypatch.setattr("sys.argv", ["bench", "show", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        error = capsys.readouterr().err
        assert ended.value.code == 2 and fault in error and "Traceback" not in error


def test_a_run_whose_weights_are_gone_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command(monkeypatch, "run", "-m", "rotnet", "-p", "knn", *QUICK, "--seed", "1")
    (path,) = tmp_path.glob("results/knn/*/rotnet/*.json")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "elsewhere"))
    capsys.readouterr()
    monkeypatch.setattr("sys.argv", ["bench", "show", str(path), "--picture"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "run it again with bench run" in " ".join(capsys.readouterr().err.split())


def test_tiles_appear_in_their_colours(tmp_path: Path) -> None:
    red = torch.tensor([2.0, 0.0, 0.0])[None, :, None, None].expand(3, 3, 4, 4)  # 2 is clipped
    lost = torch.full((3, 3, 4, 4), float("nan"))
    out = tmp_path / "panels.png"
    panels = [Panel("red", red, ("a", "b", "c"), (True, False, True)), Panel("lost", lost)]
    picture.draw(panels, "a title", out)
    pixels = (image.imread(out)[..., :3] * 255).round().astype(int).reshape(-1, 3)
    area = 3 * ((picture.TILE - 0.06) * picture.DPI) ** 2
    for color in ((255, 0, 0), (128, 128, 128)):
        count = (np.abs(pixels - color) <= 1).all(1).sum()
        assert 0.97 * area < count < 1.03 * area


def test_a_picture_goes_to_a_png_in_a_folder(tmp_path: Path) -> None:
    for out in (tmp_path / "panels.jpg", tmp_path / "nowhere" / "panels.png"):
        with pytest.raises(BenchError, match=r"name a \.png file"):
            picture.png(out)


def test_captions_of_many_lines_have_room(tmp_path: Path) -> None:
    tiles = torch.zeros(2, 3, 4, 4)
    heights = []
    for text in ("a", "a\nb\nc\nd"):
        out = tmp_path / "panels.png"
        picture.draw([Panel("tiles", tiles, (text, "a"))], "a title", out)
        heights.append(image.imread(out).shape[0])
    assert heights[1] - heights[0] == pytest.approx(3 * picture.LINE * picture.DPI, abs=1)
    ink = image.imread(out)[..., :3].min(2) < 0.9
    assert not ink[-2:].any(), "the last line is cut off"
