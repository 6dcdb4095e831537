"""The record: what it accepts, where it lives, and that it is never lost or overwritten."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from bench.errors import BenchError
from bench.record import (
    Beside,
    Record,
    load_all,
    path_of,
    read,
    read_arrays,
    read_predictions,
    run_id,
    store,
    write,
)

REPOSITORY = Path(__file__).parents[2]
FROZEN = Path(__file__).parent / "data" / "record_v1.json"
FAILED = {"status": "failed", "metrics": {}, "per_layer": {}, "message": "out of patience"}


def predictions(predicted, label):
    """Predictions alone beside a record."""
    return Beside((predicted, label))


def test_a_record_comes_back_as_it_was_written(tmp_path, sample):
    record = sample(created="2026-03-04T05:06:07Z")
    path = write(tmp_path, record)
    assert path == tmp_path / "linear" / "scenes" / "rotnet" / f"{record.run_id}.json"
    assert read(path) == record
    assert json.loads(path.read_text())["metrics"]["top1"] == 60.0


def test_the_frozen_first_record_stays_readable():
    record = read(FROZEN)
    raw = json.loads(FROZEN.read_text())
    assert record.model_dump(mode="json", exclude_unset=True) == raw  # none dropped or converted


def test_every_committed_record_is_readable():
    _, problems = load_all(REPOSITORY / "results")
    assert problems == []


@pytest.mark.parametrize(
    "part", ["", "method", "pretraining", "data", "protocol", "metric", "cost", "environment"]
)
def test_an_unknown_key_is_an_error(sample, part):
    raw = sample().model_dump()
    (raw[part] if part else raw)["surprise"] = 1
    with pytest.raises(ValidationError, match="surprise"):
        Record.model_validate(raw)


def test_numbers_are_finite(sample):
    with pytest.raises(ValidationError, match="finite"):
        sample(run_id="a" * 12, metrics={"top1": float("nan")})


def test_a_diverged_run_can_be_stored_with_the_loss_it_ended_on(tmp_path, sample):
    log = {"loss": float("nan"), "lr": 0.1}
    record = sample(run_id="a" * 12, status="diverged", metrics={}, log=log)
    stored = read(write(tmp_path, record))
    assert "loss" not in stored.log
    assert stored.log["lr"] == 0.1


def test_an_ok_record_has_its_primary_metric(sample):
    with pytest.raises(ValidationError, match="no 'top1'"):
        sample(metrics={})


def test_tuples_in_a_configuration_become_lists(tmp_path, sample):
    record = sample(config={"angles": (0, 180), "lr": {"head": (0.1,)}})
    assert record.method.config["angles"] == [0, 180]
    assert read(write(tmp_path, record)) == record


def test_run_id_is_the_sha256_of_canonical_json():
    identity = {"b": [1, 2], "a": {"y": None, "x": "é"}}
    text = r'{"a":{"x":"\u00e9","y":null},"b":[1,2]}'
    assert run_id(identity) == hashlib.sha256(text.encode()).hexdigest()[:12]
    assert run_id({"a": {"x": "é", "y": None}, "b": (1, 2)}) == run_id(identity)
    assert run_id({**identity, "seed": 1}) != run_id(identity)


@pytest.mark.parametrize("data", ["imagefolder:/home/me/../pictures", "..", "/", "a b\\c", "."])
def test_no_name_leads_out_of_the_results_folder(tmp_path, sample, data):
    path = write(tmp_path, sample(data=data))
    folders = path.resolve().relative_to(tmp_path.resolve()).parts
    assert len(folders) == 4 and folders[0] == "linear" and folders[2] == "rotnet"
    assert load_all(tmp_path)[1] == []


# ------------------------------------------------------------------------------------- append-only
def test_other_results_of_the_same_run_are_refused(tmp_path, sample):
    path = write(tmp_path, sample(run_id="a" * 12))
    before = path.read_bytes()
    prediction = np.zeros(3, dtype=np.int64)
    with pytest.raises(BenchError, match="append-only") as caught:
        write(tmp_path, sample(run_id="a" * 12, top1=61.0), predictions(prediction, prediction))
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_same_results_again_keep_the_first_account(tmp_path, sample):
    first = sample(run_id="a" * 12)
    path = write(tmp_path, first)
    assert write(tmp_path, sample(run_id="a" * 12, created="2027-01-01T00:00:00Z")) == path
    assert read(path) == first


def test_a_failed_record_gives_way_to_an_ok_one_only(tmp_path, sample):
    failed = sample(run_id="a" * 12, **FAILED)
    path = write(tmp_path, failed)
    write(tmp_path, sample(run_id="a" * 12, **{**FAILED, "status": "oom"}))
    assert read(path) == failed
    write(tmp_path, sample(run_id="a" * 12), predictions(np.array([1]), np.array([1])))
    ok = read(path)
    assert (ok.status, ok.predictions) == ("ok", "a" * 12 + ".npz")
    write(tmp_path, failed)
    assert read(path) == ok


def test_a_damaged_record_is_not_overwritten(tmp_path, sample):
    path = path_of(tmp_path, sample())
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(BenchError, match="not a readable record"):
        write(tmp_path, sample())
    assert path.read_text() == "{"


def test_a_write_cut_short_leaves_no_record_and_can_be_repeated(tmp_path, sample, monkeypatch):
    def full(*_: object) -> None:
        raise BenchError("the disk is full")

    prediction = np.arange(3)
    with monkeypatch.context() as patch, pytest.raises(BenchError, match="full"):
        patch.setattr(store, "write_text", full)
        write(tmp_path, sample(), predictions(prediction, prediction))
    assert load_all(tmp_path) == ([], [])
    path = write(tmp_path, sample(), predictions(prediction, prediction))
    assert read_predictions(path, read(path)) is not None


# ------------------------------------------------------------------------------------- predictions
def test_predictions_lie_beside_the_record_in_sixteen_bits(tmp_path, sample):
    predicted, label = np.array([0, 65_535, 7]), np.array([0, 1, 7])
    path = write(tmp_path, sample(), predictions(predicted, label))
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
        assert {name: arrays[name].dtype for name in arrays} == {
            "prediction": np.uint16,
            "label": np.uint16,
        }
    stored = read_predictions(path, read(path))
    assert stored is not None
    np.testing.assert_array_equal(stored, (predicted, label))


@pytest.mark.parametrize(
    ("predicted", "label"),
    [([0, 1], [0]), ([65_536], [0]), ([-1], [0]), ([0.5], [0]), ([[0]], [[0]])],
)
def test_predictions_that_do_not_fit_are_refused(tmp_path, sample, predicted, label):
    with pytest.raises(ValueError, match=r"predictions|vector|16 bits"):
        write(tmp_path, sample(), predictions(np.array(predicted), np.array(label)))
    assert list(tmp_path.rglob("*.*")) == []


@pytest.mark.parametrize("damage", ["missing", "truncated", "pickle", "text"])
def test_damaged_predictions_are_named(tmp_path, sample, damage):
    path = write(tmp_path, sample(), predictions(np.arange(3), np.arange(3)))
    file = path.with_suffix(".npz")
    if damage == "missing":
        file.unlink()
    elif damage == "truncated":
        file.write_bytes(file.read_bytes()[:-40])
    elif damage == "pickle":
        np.savez(file, prediction=np.array([{}], dtype=object), label=np.arange(3))
    else:
        file.write_text("hello")
    with pytest.raises(BenchError, match=file.name):
        read_predictions(path, read(path))


# ----------------------------------------------------------------------------------- foreign files
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'{"a": 1}', b"\xff\xfe\x00", b"[" * 100_000, b'{"run_id": "x"}'],
)
def test_foreign_files_are_named_and_left_out(tmp_path, sample, content):
    kept = write(tmp_path, sample())
    foreign = kept.with_name("foreign.json")
    foreign.write_bytes(content)
    records, problems = load_all(tmp_path)
    assert [path for path, _ in records] == [kept]
    (problem,) = problems
    assert problem.startswith("linear/scenes/rotnet/foreign.json: ")
    assert "\n" not in problem
    with pytest.raises(BenchError) as caught:
        read(foreign)
    assert str(foreign) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_record_truncated_anywhere_is_never_taken_for_one(tmp_path, sample):
    path = write(tmp_path, sample())
    content = path.read_bytes().rstrip()
    for length in range(0, len(content), 97):
        path.write_bytes(content[:length])
        records, problems = load_all(tmp_path)
        assert (records, len(problems)) == ([], 1)


def test_a_record_of_a_later_schema_is_left_out(tmp_path, sample):
    path = write(tmp_path, sample())
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 2'))
    assert "schema_version" in load_all(tmp_path)[1][0]


def test_a_copied_record_and_a_folder_are_left_out(tmp_path, sample):
    path = write(tmp_path, sample())
    path.with_name("copy.json").write_bytes(path.read_bytes())
    (tmp_path / "folder.json").mkdir()
    records, problems = load_all(tmp_path)
    assert len(records) == 1
    assert [line.split(":")[0] for line in problems] == [
        "folder.json",
        "linear/scenes/rotnet/copy.json",
    ]


def test_neither_records_nor_leaderboard_import_torch():
    code = "import bench.record, bench.leaderboard, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)


def test_arrays_and_a_figure_lie_beside_their_record(tmp_path, sample):
    arrays = {"rdm": np.arange(3.0, dtype=np.float16), "classes": np.array([2, 1])}
    path = write(tmp_path, sample(), Beside(arrays=arrays, figure=b"\x89PNG"))
    record = read(path)
    assert record.predictions is None
    assert (path.parent / record.figure).read_bytes() == b"\x89PNG"
    stored = read_arrays(path, record)
    assert stored.keys() == arrays.keys()
    assert all(np.array_equal(stored[name], arrays[name]) for name in arrays)
    assert stored["rdm"].dtype == np.float16
    (path.parent / record.arrays).write_bytes(b"PK")
    with pytest.raises(BenchError, match="does not hold the arrays"):
        read_arrays(path, record)


def test_a_record_without_arrays_has_none(tmp_path, sample):
    path = write(tmp_path, sample())
    assert read_arrays(path, read(path)) == {}
