"""`bench sweep`: what is done is never done again, and a failed cell never stops the rest."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import registry, suite
from bench.errors import BenchError
from bench.progress import Reporter
from bench.sweep import Sweep

TINY = {"data": "digits", "limit": 128, "epochs": 1, "batch_size": 32}


def write(folder: Path, *blocks: dict[str, object]) -> str:
    """A suite of `blocks` on a few digits, as JSON, which is YAML too."""
    path = folder / "suite.yaml"
    path.write_text(json.dumps({"title": "tiny", "runs": [{**TINY, **block} for block in blocks]}))
    return str(path)


def sweep(name: str, results: Path) -> Sweep:
    return Sweep(suite.read(name), results, Reporter(quiet=True))


def states(done: Sweep) -> list[str]:
    return [cell.state for cell in done.cells]


def test_a_second_sweep_finds_everything_done(tmp_path, monkeypatch) -> None:
    name = write(tmp_path, {"methods": "random_init", "protocols": "knn", "seeds": 2})
    first = sweep(name, tmp_path / "results")
    assert states(first) == ["left", "left"]
    assert first.run()
    assert states(first) == ["done", "done"]
    second = sweep(name, tmp_path / "results")
    assert states(second) == ["done", "done"]
    assert [cell.record for cell in second.cells] == [cell.record for cell in first.cells]
    monkeypatch.setattr("bench.runner.run", None)  # nothing is run: it could not be
    assert second.run()


def test_cells_that_fail_or_lack_their_data_are_told_and_the_rest_is_done(tmp_path) -> None:
    name = write(
        tmp_path,
        {"methods": "clip", "protocols": "knn"},  # digits have no captions
        {"methods": "pixels", "protocols": "knn", "data": "stl10", "data_root": str(tmp_path)},
        {"methods": "rotnet", "protocols": "knn", "batch_size": 4096},  # more than there are
        {"methods": "pixels", "protocols": "knn"},
    )
    swept = sweep(name, tmp_path / "results")
    assert states(swept) == ["failed", "absent", "left", "left"]
    assert not swept.run()
    assert states(swept) == ["failed", "absent", "failed", "done"]
    messages = [cell.message for cell in swept.cells]
    assert "needs text" in messages[0]
    assert "stl10" in messages[1]
    assert "4096" in messages[2]
    assert len(list((tmp_path / "results").rglob("*.json"))) == 1


def test_a_crash_of_a_cell_is_logged_and_the_rest_is_done(tmp_path, monkeypatch) -> None:
    path = tmp_path / "broken.py"
    path.write_text(
        "from bench.api import Untrained\n\n\n"
        "class Broken(Untrained):\n"
        "    def encoder(self):\n"
        "        class Wrong(type(self.backbone)):\n"
        "            def forward(self, x):\n"
        "                return x[0, 0, 0, 0, 0]\n"
        "        self.backbone.__class__ = Wrong\n"
        "        return self.backbone\n"
    )
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    name = write(tmp_path, {"methods": [str(path), "pixels"], "protocols": "knn"})
    swept = sweep(name, tmp_path / "results")
    assert not swept.run()
    assert states(swept) == ["failed", "done"]
    assert "IndexError" in swept.cells[0].message
    assert "Traceback" in swept.log.read_text()


def test_vary_backbones_and_seeds_make_cells_with_protocols_innermost(tmp_path) -> None:
    name = write(
        tmp_path,
        {
            "methods": "rotnet",
            "protocols": ["knn", "linear"],
            "backbones": ["small", "nin3"],
            "vary": {"method.angles": [[0, 180], [90, 270]]},
            "set": {"method.lr": 0.05},
        },
    )
    found = [cell.resolved for cell in sweep(name, tmp_path).cells]
    assert [(r.backbone, r.method_cfg.angles[0], r.protocol_name) for r in found if r] == [
        (backbone, angle, protocol)
        for backbone in ("small", "nin3")
        for angle in (0, 90)
        for protocol in ("knn", "linear")
    ]
    assert {r.method_cfg.lr for r in found if r} == {0.05}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title: x", "runs"),
        ("- 1", "needs a title"),
        ("title: [", "not a readable YAML"),
        ("{title: x, runs: [{methods: rotnet, protocol: knn}]}", "did you mean protocols"),
        ("{title: x, runs: [{methods: rotnet, seeds: 0}]}", r"runs\.0\.seeds"),
    ],
)
def test_a_wrong_suite_is_one_line(tmp_path, text: str, message: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(BenchError, match=message) as error:
        suite.read(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["methods", "protocols", "data"])
def test_a_wrong_name_is_told_before_anything_runs(tmp_path, key: str) -> None:
    block = {"methods": "rotnet", "protocols": "knn", key: "rotnett"}
    with pytest.raises(BenchError, match="rotnett"):
        sweep(write(tmp_path, block), tmp_path)


def test_an_unknown_suite_is_told_with_the_nearest() -> None:
    with pytest.raises(BenchError, match="did you mean quick"):
        suite.read("quik")


@pytest.mark.parametrize("name", registry.suites())
def test_every_suite_that_comes_along_is_valid(name: str) -> None:
    assert registry.suites()[name]
    for block in suite.read(name).runs:
        block.check_names()
        block.overrides()


def test_a_killed_sweep_goes_on_where_it_stopped(tmp_path) -> None:
    name = write(tmp_path, {"methods": ["pixels", "rotnet"], "protocols": "knn", "seeds": 2})
    command = [sys.executable, "-m", "bench.cli", "sweep", name]
    environment = os.environ | {"BENCH_RESULTS": str(tmp_path / "results"), "COLUMNS": "200"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while len(list(tmp_path.rglob("knn/**/*.json"))) < 1 and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {path: path.read_bytes() for path in tmp_path.rglob("knn/**/*.json")}
    assert before
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "4 cells, 4 done" in again.stdout
    after = {path: path.read_bytes() for path in tmp_path.rglob("knn/**/*.json")}
    assert len(after) == 4
    assert before.items() <= after.items()


def test_a_wrong_setting_is_a_failure_and_no_absence(tmp_path) -> None:
    name = write(
        tmp_path,
        {"methods": "rotnet", "protocols": "knn", "set": {"method.lrr": 1}},
        {"methods": "rotnet", "protocols": "knn", "vary": {"protocol.nothing": [1, 2]}},
        {"methods": "pixels", "protocols": "knn"},
    )
    swept = sweep(name, tmp_path / "results")
    assert states(swept) == ["failed", "failed", "left"]
    assert "did you mean lr" in swept.cells[0].message
    assert not swept.run()


def test_a_crash_while_planning_stops_nothing(tmp_path, monkeypatch) -> None:
    from bench import runner

    plan = runner.plan

    def fails(resolved, *data):
        if resolved.method_name == "rotnet":
            raise RuntimeError("no such thing")
        return plan(resolved, *data)

    monkeypatch.setattr("bench.runner.plan", fails)
    name = write(tmp_path, {"methods": ["rotnet", "pixels"], "protocols": "knn"})
    swept = sweep(name, tmp_path / "results")
    assert states(swept) == ["failed", "left"]
    swept.run()
    assert states(swept) == ["failed", "done"]


def test_what_diverged_is_not_trained_again_for_another_protocol(tmp_path, monkeypatch) -> None:
    from bench import engine

    block = {"methods": "rotnet", "protocols": ["knn", "logreg"], "set": {"method.lr": 1e9}}
    name = write(tmp_path, block)
    swept = sweep(name, tmp_path / "results")
    assert not swept.run()
    assert states(swept) == ["failed", "failed"]
    assert "not finite" in swept.cells[1].message
    monkeypatch.setattr(engine, "fit", None)  # nothing is trained: it could not be
    assert states(sweep(name, tmp_path / "results")) == ["failed", "failed"]


def test_options_of_the_suite_stand_unless_others_are_given(tmp_path) -> None:
    name = write(tmp_path, {"methods": "pixels", "device": "cpu", "data_root": "/somewhere"})
    (block,) = suite.read(name, device=None, data_root=None).runs
    assert (block.device, str(block.data_root)) == ("cpu", "/somewhere")
    (block,) = suite.read(name, device="cuda", data_root=Path("/else")).runs
    assert (block.device, str(block.data_root)) == ("cuda", "/else")
    with pytest.raises(BenchError, match="device"):
        suite.read(name, device="gpu")


def test_what_another_process_is_at_is_waited_for(tmp_path, monkeypatch) -> None:
    from bench import files, runner
    from bench.pretraining import locked

    monkeypatch.setattr("bench.sweep.WAIT", 0.01)
    name = write(tmp_path, {"methods": "pixels", "protocols": "knn"})
    swept = sweep(name, tmp_path / "results")
    cell = swept.cells[0]
    assert cell.resolved is not None
    planned = runner.plan(cell.resolved, swept._data(cell.block, "digits"))
    tries = []

    def busy_at_first(*args, **kwargs):
        tries.append(1)
        if len(tries) > 2:
            return run(*args, **kwargs)
        with locked(files.cache_root() / "running" / f"{planned.run_id}.lock"):
            return run(*args, **kwargs)

    run = runner.run
    monkeypatch.setattr("bench.runner.run", busy_at_first)
    assert swept.run()
    assert len(tries) == 3
