"""The real command, as a user runs it: what it prints, what it leaves, how it fails."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import cli, record
from bench.data import catalog

QUICK = ["--data", "digits", "--limit", "256", "--epochs", "1", "--batch-size", "32"]
HEAVY = ("torch", "timm", "pandas", "sklearn")


def bench(
    *arguments: str, cwd: Path | None = None, check: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.cli", *arguments],
        cwd=cwd,
        env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if check:
        assert done.returncode == 0, done.stderr
    return done


def refused(*arguments: str, cwd: Path | None = None, **environment: str) -> str:
    """The one line that a failing command prints on stderr."""
    done = bench(*arguments, cwd=cwd, check=False, **environment)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The results folder and the cache of one finished run."""
    home = tmp_path_factory.mktemp("finished")
    arguments = ["run", "--method", "random_init", "--protocol", "knn", *QUICK[:4]]
    bench(*arguments, cwd=home, BENCH_CACHE=str(home / "cache"))
    return home / "results", home / "cache"


@pytest.fixture
def run(finished: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished run's results folder; its features are in the cache."""
    results, cache = finished
    monkeypatch.setenv("BENCH_CACHE", str(cache))
    shutil.copytree(results, tmp_path / "results")
    return tmp_path / "results"


def test_help_and_list_import_nothing_heavy() -> None:
    for argument in ("--help", "list"):
        program = (
            "import sys\nfrom bench import cli\n"
            f"sys.argv = ['bench', {argument!r}]\n"
            "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
            f"print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )
        assert done.stdout.rstrip().endswith("HEAVY []"), done.stdout[-200:]


def test_list_names_everything_with_its_first_line() -> None:
    out = bench("list").stdout
    for name in (
        "rotnet",
        "linear",
        "knn",
        "scenes",
        "cifar10",
        "small",
        "nin4",
        "arXiv:1803.07728",
    ):
        assert name in out


def test_a_run_leaves_a_record_and_its_predictions(run: Path) -> None:
    (path,) = run.rglob("*.json")
    made = record.read(path)
    assert path.parent == run / "knn" / "digits-limit256" / "random_init"
    assert made.status == "ok"
    assert 0 <= made.metrics["top1"] <= 100
    assert made.predictions is not None
    predictions = record.read_predictions(path, made)
    assert predictions is not None
    accuracy = 100 * (predictions[0] == predictions[1]).mean()
    assert made.metrics["top1"] == pytest.approx(accuracy)


def test_a_second_run_is_a_reproduction(run: Path) -> None:
    (path,) = run.rglob("*.json")
    before = path.read_bytes()
    done = bench("run", "-m", "random_init", "-p", "knn", *QUICK[:4], cwd=run.parent)
    assert "recorded before" in done.stdout
    assert "(+0.00)" in done.stdout
    assert "nothing was extracted again" in done.stderr
    assert path.read_bytes() == before


def test_a_second_protocol_retrains_and_reextracts_nothing(tmp_path: Path) -> None:
    arguments = ["run", "--method", "rotnet", *QUICK]
    home = {"BENCH_CACHE": str(tmp_path / "cache")}
    first = [*arguments, "--protocol", "linear", "--set", "protocol.min_steps=20"]
    bench(*first, cwd=tmp_path, **home)
    second = [*arguments, "--protocol", "knn"]
    done = bench(*second, cwd=tmp_path, **home)
    assert "nothing is trained again" in done.stderr
    assert "nothing was extracted again" in done.stderr
    # The same weights, truncated: named in one line, and trained anew only when that is asked for.
    (final,) = tmp_path.glob("cache/runs/*/final.safetensors")
    whole = final.read_bytes()
    final.write_bytes(whole[:1000])
    assert "are damaged" in refused(*second, cwd=tmp_path, **home)
    done = bench(*second, "--no-resume", cwd=tmp_path, **home)
    assert final.read_bytes() == whole
    assert "(+0.00)" in done.stdout


def test_show_prints_a_record_by_the_beginning_of_its_id(run: Path) -> None:
    (path,) = run.rglob("*.json")
    done = bench("show", path.stem[:6], cwd=run.parent)
    assert "random_init" in done.stdout
    assert "environment" in done.stdout
    assert "no record" in refused("show", "0123456789ab", cwd=run.parent)


def test_leaderboard_is_written_and_an_edit_is_found(run: Path) -> None:
    home = run.parent
    bench("leaderboard", cwd=home)
    bench("leaderboard", "--check", cwd=home)
    board = home / "leaderboard.md"
    board.write_text(re.sub(r"\d\d\.\d", "99.9", board.read_text(), count=1))
    assert "bench leaderboard" in refused("leaderboard", "--check", cwd=home)


def test_a_foreign_record_is_named_and_left_out(run: Path) -> None:
    (path,) = run.rglob("*.json")
    (path.parent / "foreign.json").write_text('{"accuracy": 100}')
    (path.parent / "cut.json").write_text(path.read_text()[:100])
    done = bench("leaderboard", cwd=run.parent)
    assert "foreign.json" in done.stderr
    assert "cut.json" in done.stderr
    assert "random_init" in (run.parent / "leaderboard.md").read_text()


def test_dry_run_prints_the_whole_configuration(tmp_path: Path) -> None:
    done = bench(
        "run", "-m", "rotnet", *QUICK, "--set", "method.angles=[0,180]", "--dry-run", cwd=tmp_path
    )
    tree = json.loads(done.stdout)
    assert tree["method"]["config"]["angles"] == [0, 180]
    assert tree["method"]["recipe"] == "small"
    assert tree["protocol"]["name"] == "linear"
    assert not (tmp_path / "results").exists()


def test_new_writes_a_method_that_passes_and_runs(tmp_path: Path) -> None:
    bench("new", "my-method", "--folder", str(tmp_path))
    path = tmp_path / "my_method.py"
    done = bench("check", str(path))
    assert "FAIL" not in done.stdout
    assert "already" in refused("new", "my_method", "--folder", str(tmp_path))
    bench("run", "-m", str(path), "-p", "knn", *QUICK, cwd=tmp_path)
    (made,) = (tmp_path / "results").rglob("*.json")
    assert record.read(made).method.source_sha256 is not None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-m", "rotnett"], "did you mean rotnet"),
        (["-m", "rotnet", "-p", "knnn"], "did you mean knn"),
        (["-m", "rotnet", "--data", "cifra10"], "cifar10"),
        (["-m", "rotnet", "--data", "imagefolder:/no/such/place"], "/no/such/place"),
        (["-m", "rotnet", "--backbone", "resnet1"], "resnet"),
        (["-m", "rotnet", "--set", "method.leraning_rate=1"], "no setting of method rotnet"),
        (["-m", "rotnet", "--set", "method.lr=high"], "lr"),
        (["-m", "rotnet", "--batch-size", "100000"], "Use a smaller --batch-size"),
        (["-m", "rotnet", "--recipe", "smal"], "did you mean small"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else None,
)
def test_bad_input_is_one_clear_line(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In this process, as an import of torch for each would take longer than the rest."""
    quick = [] if "--data" in arguments else QUICK[:4]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["bench", "run", *arguments, *quick])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    (line,) = (x for x in capsys.readouterr().err.splitlines() if x.startswith("error:"))
    assert words in line
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("wrong", [["-m", "rotnett"], ["-m", "rotnet", "-p", "knnn"]])
def test_a_wrong_name_is_told_before_any_data_are_read(
    wrong: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(catalog, "load", None)
    monkeypatch.setattr(sys, "argv", ["bench", "run", *wrong])
    with pytest.raises(SystemExit):
        cli.main()
    assert "did you mean" in capsys.readouterr().err


def test_two_runs_of_one_configuration_at_once(tmp_path: Path) -> None:
    """The second says so and stops; the first is not disturbed."""
    arguments = [sys.executable, "-m", "bench.cli", "run", "-m", "rotnet", "-p", "knn", *QUICK[:4]]
    arguments += ["--epochs", "1000", "--batch-size", "32", "--set", "engine.checkpoint_seconds=0"]
    home = os.environ | {"BENCH_CACHE": str(tmp_path / "cache"), "NO_COLOR": "1"}
    first = subprocess.Popen(
        arguments, cwd=tmp_path, env=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while first.poll() is None and not list(tmp_path.glob("cache/runs/*/last.pt")):
            time.sleep(0.05)
        second = subprocess.run(
            arguments, cwd=tmp_path, env=home, capture_output=True, text=True, check=False
        )
        assert first.poll() is None, "the first run did not outlast the second"
    finally:
        first.kill()
        first.wait()
    assert second.returncode == 2
    assert "another process is at this very configuration" in second.stderr.replace("\n", " ")
    assert not (tmp_path / "results").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_one_clear_line_and_loses_nothing(tmp_path: Path) -> None:
    """A 3 MB disk fills up while training; with more room the same command finishes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this machine does not allow mounting a small disk")
    arguments = ["run", "-m", "rotnet", "-p", "knn", *QUICK[:4], "--epochs", "3"]
    arguments += ["--batch-size", "64", "--set", "engine.checkpoint_seconds=0"]
    try:
        line = refused(*arguments, cwd=tmp_path, BENCH_CACHE=str(disk))
        assert "the disk is full" in line
        assert not (tmp_path / "results").exists()
        subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
        done = bench(*arguments, cwd=tmp_path, BENCH_CACHE=str(disk))
        assert "resuming after step" in done.stderr
    finally:
        subprocess.run(["umount", str(disk)], check=True)
