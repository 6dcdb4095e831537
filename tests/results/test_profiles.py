"""Profiles: kept apart from results, readable for ever, shown from the newest of each device."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pages import tables
from pydantic import ValidationError

from bench import leaderboard, show
from bench.errors import BenchError
from bench.record import EnvironmentRecord, load_all, profiles
from bench.record.profile import (
    DataProfile,
    DataRow,
    FitRow,
    LossProfile,
    LossRow,
    MemoryRecord,
    Profile,
    Quantiles,
    RoofRecord,
    StepProfile,
    StepRow,
)
from bench.record.units import binary, digits, milliseconds, percent, sizes

DATA = Path(__file__).parent / "data"
HERE = EnvironmentRecord(
    device="cpu",
    cpu="Two-core CPU",
    threads=2,
    platform="Linux",
    python="3.11.0",
    torch="2.11.0",
    torchvision="0.26.0",
    timm="1.0.20",
    bench="0.1.0",
)
GPU = HERE.model_copy(update={"device": "NVIDIA H200"})
TIMES = Quantiles(median=12.3, p10=12.0, p90=14.0, rounds=9, clock="wall")


def loss(provider: str = "reference", **change: Any) -> LossRow:
    usual: dict[str, Any] = {
        "op": "ntxent",
        "batch": 1024,
        "dim": 128,
        "dtype": "float32",
        "forward": TIMES,
        "both": TIMES,
        "memory": MemoryRecord(peak=3 * 2**20, saved=2**20),
        "share": 0.5,
    }
    return LossRow(provider=provider, **{**usual, **change})


def step(**change: Any) -> StepRow:
    usual: dict[str, Any] = {
        "method": "simclr",
        "backbone": "small",
        "data": "scenes",
        "size": 32,
        "batch_size": 256,
        "precision": "32",
        "step": TIMES,
        "images_per_second": 4321.0,
        "stages": {"views": TIMES, "backward": TIMES},
    }
    return StepRow(**{**usual, **change})


def put(
    results: Path,
    kind: type[Profile],
    *rows: Any,
    environment: EnvironmentRecord = HERE,
    created: str = "2026-01-02T03:04:05Z",
    **change: Any,
) -> Path:
    begun = profiles.begin(results, kind, {"made": created}, environment, resume=False)
    update = {"rows": rows, "created": created, "complete": True, **change}
    return profiles.write(results, begun.model_copy(update=update))


def page(results: Path) -> str:
    return leaderboard.build(results)


# -------------------------------------------------------------------------------------- the record
def test_a_profile_is_read_back_as_it_was_written(results: Path) -> None:
    rows = (loss(), loss("triton", both=None, reason="out of memory: 2 GiB"))
    fit = FitRow(
        op="ntxent", provider="reference", dim=128, dtype="float32", memory=2**30, ended="time"
    )
    roof = RoofRecord(flops={"float32": 1e12}, bytes_per_second=1e11)
    path = put(results, LossProfile, *rows, fits=(fit,), roof=roof)
    ((found, profile),), problems = profiles.load(results)
    assert (found, problems) == (path, [])
    assert isinstance(profile, LossProfile)
    assert (profile.rows, profile.fits, profile.roof) == (rows, (fit,), roof)
    assert path.parent == results / "profile" / "losses"


@pytest.mark.parametrize("kind", ["step", "losses", "data"])
def test_profiles_of_the_first_schema_stay_readable(results: Path, kind: str) -> None:
    source = DATA / f"profile_{kind}_v1.json"
    target = results / "profile" / kind / f"{json.loads(source.read_text())['id']}.json"
    target.parent.mkdir(parents=True)
    shutil.copy(source, target)
    ((_, profile),), problems = profiles.load(results)
    assert problems == [] and profile.kind == kind and profile.rows


@pytest.mark.parametrize(
    "change", [{"surprise": 1}, {"batch": "many"}, {"share": float("nan")}, {"bound": "luck"}]
)
def test_unknown_keys_and_wrong_values_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        loss(**change)


def test_foreign_and_misplaced_files_are_named_on_the_page(results: Path) -> None:
    kept = put(results, LossProfile, loss())
    kept.with_name("copy.json").write_bytes(kept.read_bytes())
    kept.with_name("foreign.json").write_text("{")
    found, problems = profiles.load(results)
    assert [path for path, _ in found] == [kept]
    assert [line.split(":")[0] for line in problems] == [
        "profile/losses/copy.json",
        "profile/losses/foreign.json",
    ]
    assert leaderboard.problems(results) == problems
    assert "profile/losses/foreign.json" in page(results).split("## Left out")[1]


def test_results_do_not_see_profiles(results: Path) -> None:
    path = put(results, LossProfile, loss())
    assert load_all(results) == ([], [])
    with pytest.raises(BenchError, match="no record"):
        show.find(path.stem, results)


def test_an_unfinished_profile_goes_on_and_a_finished_one_is_measured_again(results: Path) -> None:
    settings = {"batches": [4], "memory": 2**30}
    first = profiles.begin(results, LossProfile, settings, HERE)
    half = first.model_copy(update={"rows": (loss(),)})
    profiles.write(results, half)
    assert profiles.begin(results, LossProfile, settings, HERE) == half
    assert profiles.begin(results, LossProfile, {**settings, "memory": 1}, HERE).rows == ()
    assert profiles.begin(results, LossProfile, settings, GPU).rows == ()
    assert profiles.begin(results, StepProfile, settings, HERE).rows == ()
    assert profiles.begin(results, LossProfile, settings, HERE, resume=False).rows == ()
    profiles.write(results, half.model_copy(update={"complete": True}))
    assert profiles.begin(results, LossProfile, settings, HERE).rows == ()


@pytest.mark.parametrize("dirty", [False, True])
def test_only_committed_code_goes_on_with_a_profile(results: Path, dirty: bool) -> None:
    here = HERE.model_copy(update={"commit": "0" * 40, "dirty": dirty})
    half = profiles.begin(results, LossProfile, {}, here).model_copy(update={"rows": (loss(),)})
    profiles.write(results, half)
    assert bool(profiles.begin(results, LossProfile, {}, here).rows) == (not dirty)


def test_other_versions_of_peers_are_another_profile(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roof = RoofRecord(flops={"float32": 1e12}, bytes_per_second=1e11)
    begun = profiles.begin(results, LossProfile, {}, HERE)
    half = begun.model_copy(update={"rows": (loss(),), "roof": roof})
    profiles.write(results, half)
    assert half.packages["numpy"] and f"numpy {half.packages['numpy']}" in page(results)
    monkeypatch.setattr(profiles, "version", lambda name: "0.0.1")
    other = profiles.begin(results, LossProfile, {}, HERE)
    assert other.rows == () and other.packages["triton"] == "0.0.1"


def test_neither_profiles_nor_their_page_import_torch() -> None:
    code = "import bench.record.profiles, bench.leaderboard, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=DATA.parents[2])


# ---------------------------------------------------------------------------------------- the page
def test_without_profiles_the_page_has_no_such_section(results: Path) -> None:
    assert "Loss kernels" not in page(results)


def test_a_gpu_that_was_not_measured_is_said_to_be_so(results: Path) -> None:
    put(results, LossProfile, loss())
    put(results, StepProfile, step())
    put(results, DataProfile, DataRow(op="flip", size=32, batch_size=64, views_per_second=9876.0))
    # Of each kind of profile; the folded ones of one device have the same heading.
    found = tables(re.sub(r"(?s)<details>.*?</details>", "", page(results)))
    here = "Two-core CPU, 2 threads"
    kernels, steps, views = (
        found[title].iloc[0] for title in ("Loss kernels", "Training-step speed", "Views")
    )
    assert {row["a GPU"] for row in (kernels, steps, views)} == {"not measured"}
    assert kernels[here] == "N=1,024 D=128 float32: 12.3 ms, 50 % of the roof, 3.00 MiB"
    assert steps[here] == "4,321 images/s"
    assert views[here] == "9,876 views/s"


def test_a_gpu_that_was_measured_has_its_own_column(results: Path) -> None:
    put(results, LossProfile, loss())
    put(results, LossProfile, loss(batch=65536), loss("triton", batch=65536), environment=GPU)
    found = tables(page(results))["Loss kernels"]
    assert "a GPU" not in found
    assert found["NVIDIA H200"].str.startswith("N=65,536 D=128").all()
    cells = found.set_index("by")["Two-core CPU, 2 threads"]
    assert cells["triton"] == "not measured"


@pytest.mark.parametrize(
    ("change", "asked"),
    [
        ({"backbone": "resnet50"}, {}),
        ({"data": "digits"}, {}),
        ({"size": 224}, {}),
        ({"batch_size": 512}, {}),
        ({"precision": "bf16"}, {}),
        ({"compiled": True}, {}),
        ({}, {"limit": 64}),
        ({}, {"kernels": "triton", "recipe": "auto"}),
        ({}, {"set": ["method.lr=0.1"]}),
    ],
)
@pytest.mark.parametrize("environment", [HERE, GPU])
def test_steps_that_were_set_otherwise_are_lines_of_their_own(
    results: Path, change: dict[str, Any], asked: dict[str, Any], environment: EnvironmentRecord
) -> None:
    put(results, StepProfile, step())
    later = {"created": "2026-02-01T00:00:00Z", "settings": asked, "environment": environment}
    put(results, StepProfile, step(images_per_second=99.0, **change), **later)
    found = tables(page(results))["Training-step speed"]
    here = "Two-core CPU, 2 threads"
    assert len(found) == 2 and "4,321 images/s" in set(found[here])
    last = found[here if environment is HERE else "NVIDIA H200"]
    assert sorted(last) == sorted(
        ["99 images/s", "4,321 images/s" if environment is HERE else "not measured"]
    )


def test_the_same_step_measured_again_replaces_the_older(results: Path) -> None:
    put(results, StepProfile, step())
    put(results, StepProfile, step(images_per_second=99.0), created="2026-02-01T00:00:00Z")
    found = tables(page(results))["Training-step speed"]
    assert list(found["Two-core CPU, 2 threads"]) == ["99 images/s"]


def test_what_was_cut_off_stands_behind_what_is_complete(results: Path) -> None:
    put(results, StepProfile, step())
    later = {"created": "2026-02-01T00:00:00Z", "complete": False}
    cut = (step(images_per_second=99.0), step(method="byol", images_per_second=77.0))
    put(results, StepProfile, *cut, **later)
    found = tables(page(results))["Training-step speed"]
    assert sorted(found["Two-core CPU, 2 threads"]) == ["4,321 images/s", "77 images/s"]


def test_a_small_size_does_not_replace_the_others_of_its_op(results: Path) -> None:
    put(results, LossProfile, loss(), loss(batch=256))
    put(results, LossProfile, loss(batch=4), created="2026-02-01T00:00:00Z")
    every = tables(page(results))["Two-core CPU, 2 threads"]
    assert list(every["size"]) == [f"N={n} D=128 float32" for n in ("4", "256", "1,024")]


def test_the_newest_search_for_a_largest_batch_is_shown(results: Path) -> None:
    fit = FitRow(
        op="ntxent", provider="reference", dim=128, dtype="float32", memory=2**30, ended="time"
    )
    put(results, LossProfile, loss(), fits=(fit.model_copy(update={"batch": 111}),))
    later = {"created": "2026-02-01T00:00:00Z", "fits": (fit.model_copy(update={"batch": 222}),)}
    put(results, LossProfile, loss(batch=4), **later)
    assert "111" not in page(results) and "222" in page(results)


def test_the_newest_profile_of_each_op_is_shown(results: Path) -> None:
    old, new = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"
    slow = TIMES.model_copy(update={"median": 99.9})
    put(results, LossProfile, loss(both=slow), loss(op="dino", dim=None, keys=64), created=old)
    put(results, LossProfile, loss(), created=new)
    found = tables(page(results))["Loss kernels"]
    assert list(found["op"]) == ["`dino`", "`ntxent`"]
    assert found.iloc[1]["Two-core CPU, 2 threads"].startswith("N=1,024 D=128 float32: 12.3 ms")
    assert "99.9" not in page(results)


def test_sizes_at_which_the_reference_did_not_run_are_no_comparison(results: Path) -> None:
    over = loss(batch=2048, forward=None, both=None, share=None, reason="out of memory: 9 GiB")
    put(results, LossProfile, loss(), loss("triton"), over, loss("triton", batch=2048))
    found = tables(page(results))
    assert found["Loss kernels"]["Two-core CPU, 2 threads"].str.startswith("N=1,024").all()
    every = found["Two-core CPU, 2 threads"]
    assert list(every["both (p10-p90)"])[2] == "out of memory"
    assert "`ntxent` by reference: out of memory: 9 GiB" in page(results)


def test_figures_and_records_are_linked_from_where_the_page_lies(
    results: Path, tmp_path: Path
) -> None:
    path = put(results, LossProfile, loss())
    name = f"{path.stem}-ntxent.png"
    profile = profiles.load(results)[0][0][1]
    profiles.write(results, profile.model_copy(update={"figures": (name,)}))
    path.with_name(name).write_bytes(b"")
    file = tmp_path / "docs" / "leaderboard.md"
    leaderboard.write(results, file)
    for target in (f"../results/profile/losses/{name}", f"../results/profile/losses/{path.name}"):
        assert f"]({target})" in file.read_text()
        assert (file.parent / target).exists()


def test_a_method_that_could_not_be_profiled_says_why(results: Path) -> None:
    put(results, StepProfile, step(step=None, images_per_second=None, reason="no <captions> here"))
    text = page(results)
    assert tables(text)["Training-step speed"].iloc[0]["Two-core CPU, 2 threads"] == "not measured"
    assert "`simclr` by bench: no &lt;captions> here" in text


# --------------------------------------------------------------------------------------- the units
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.01234, "0.012"),
        (0.9996, "1.00"),
        (1.234, "1.23"),
        (9.996, "10.0"),
        (12.34, "12.3"),
        (99.96, "100"),
        (1234.5, "1,234"),
        (-0.2, "-0.200"),
    ],
)
def test_digits(value: float, text: str) -> None:
    assert digits(value) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.977 KiB"),
        (2**20, "1.00 MiB"),
        (5 * 2**40, "5,120 GiB"),
    ],
)
def test_bytes(count: int, text: str) -> None:
    assert binary(count) == text


def test_times_shares_and_sizes() -> None:
    assert milliseconds(TIMES) == "12.3 (12.0-14.0)"
    assert milliseconds(TIMES, spread=False) == "12.3"
    assert milliseconds(None) == percent(None) == ""
    assert (percent(0.034), percent(0.5), percent(1.2)) == ("3.4 %", "50 %", "120 %")
    assert sizes(128, None, "bfloat16", 1024) == "N=1,024 D=128 bfloat16"
    assert sizes(None, 65536, "float32") == "K=65,536 float32"
