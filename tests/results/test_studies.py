"""Settings studied apart, and all protocols at a glance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pages import tables

from bench.leaderboard import page
from bench.leaderboard.groups import Entry
from bench.leaderboard.studies import studies, table
from bench.record import Record

Sample = Callable[..., Record]


def entries(*records: Record) -> list[Entry]:
    return [
        Entry(Path(f"{r.protocol.name}/{r.method.name}/{number}.json"), r)
        for number, r in enumerate(records)
    ]


def variant(sample: Sample, gap: int, seed: int, top1: float, pretext: float) -> Record:
    parts = {"method": {"changed": {"gap": gap} if gap != 2 else {}}}
    log = {"loss": 0.5, "pretext_top1": pretext}
    return sample(
        "jigsaw",
        seed,
        top1,
        config={"gap": gap, "lr": 0.1},
        parts={**parts, "pretraining": {"id": f"{gap}{seed}"}},
        log=log,
    )


def cells(markdown: str, gap: str) -> dict[str, str]:
    """The row of a gap, by the table's header."""
    header, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines()
    ]
    (row,) = [row for row in rows if row[0] == gap]
    return dict(zip(header, row, strict=True))


def test_a_study_sets_pretext_beside_downstream(sample: Sample) -> None:
    records = [
        *(variant(sample, 2, seed, 50.0 + seed, 70.0) for seed in range(2)),
        *(variant(sample, 0, seed, 40.0 + seed, 98.0 - 2 * seed) for seed in range(2)),
    ]
    (study,) = studies(entries(*records))
    assert study.keys == ("gap",)
    shown = table(study)
    assert "loss" not in shown  # the accuracy of the pretext task says more
    one, other = cells(shown, "2"), cells(shown, "0")
    assert (one["recipe"], one["pretext_top1"], one["seeds"]) == ("yes", "70", "2")
    assert one["linear@1: top1 % ↑"].startswith("50.50 ± ")
    assert (other["recipe"], other["pretext_top1"]) == ("", "97")
    assert shown.index("| 2 ") < shown.index("| 0 ")  # best first


def test_changed_settings_are_not_ranked(sample: Sample, tmp_path: Path) -> None:
    records = [variant(sample, 2, 0, 50.0, 70.0), variant(sample, 0, 0, 60.0, 98.0)]
    shown = page(entries(*records), [], tmp_path)
    ranking, _, study = shown.partition("### Settings studied: jigsaw")
    assert "50.00" in ranking and "60.00" not in ranking
    assert "50.00" in study and "60.00" in study


def test_methods_without_changed_settings_are_no_study(sample: Sample) -> None:
    assert studies(entries(sample("rotnet"), sample("rotnet", 1))) == []


def test_protocols_stand_side_by_side(sample: Sample, tmp_path: Path) -> None:
    knn = {"protocol": {"name": "knn"}}
    records = [
        sample("rotnet", 0, 60.0),
        sample("rotnet", 0, 35.0, parts=knn),
        sample("random_init", 0, 38.0),
        sample("random_init", 0, 18.0, parts=knn),
    ]
    shown = page(entries(*records), [], tmp_path)
    glance = shown[shown.index("### At a glance") :].split("\n\n")[1]
    header = [cell.strip() for cell in glance.splitlines()[0].strip("|").split("|")]
    assert [h for h in header if "@" in h] == ["linear@1: top1 % ↑", "knn@1: top1 % ↑"]
    (line,) = [row for row in glance.splitlines() if "`rotnet`" in row]
    assert line.index("60.00") < line.index("35.00")


def test_one_protocol_has_no_glance(sample: Sample, tmp_path: Path) -> None:
    assert "At a glance" not in page(entries(sample("rotnet")), [], tmp_path)


def test_an_encoder_before_training_is_a_control_and_no_row(sample: Sample, tmp_path: Path) -> None:
    knn = {"protocol": {"name": "knn"}}
    records = [
        *(sample("nat", 0, top1, parts=knn) for top1 in (55.0,)),
        sample("nat", 0, 56.0),
        sample("nat", 0, 54.25, epochs=0),
        sample("nat", 1, 54.75, epochs=0),
        sample("lonely", 0, 33.0, epochs=0),
    ]
    shown = page(entries(*records), [], tmp_path)
    glance = shown[shown.index("### At a glance") :].split("\n\n")[1]
    header, _, *rows = [line.strip("|").split("|") for line in glance.splitlines()]
    (row,) = [row for row in rows if "`nat`" in "".join(row)]
    assert (
        dict(zip(map(str.strip, header), map(str.strip, row), strict=True))["untrained linear"]
        == "54.50"
    )
    assert "54.25" not in shown
    assert "33.00" in shown  # without a trained row there is nothing to be a control of


def test_a_protocol_in_two_configurations_is_two_columns(sample: Sample, tmp_path: Path) -> None:
    def measured(gap: int, top1: float, augment: bool) -> Record:
        changed = {"method": {"changed": {"gap": gap} if gap else {}}}
        own = {"pretraining": {"id": f"{gap}"}, "protocol": {"config": {"augment": augment}}}
        return sample("jigsaw", 0, top1, config={"gap": gap}, parts={**changed, **own})

    records = [measured(0, 50.0, False), measured(2, 53.1, False), measured(2, 99.0, True)]
    (study,) = studies(entries(*records))
    row = cells(table(study), "2")
    assert row["linear@1 (augment=False): top1 % ↑"] == "53.10"
    assert row["linear@1 (augment=True): top1 % ↑"] == "99.00"


def test_a_second_configuration_has_a_column_of_its_own_in_the_glance(
    sample: Sample, tmp_path: Path
) -> None:
    knn, other = {"protocol": {"name": "knn"}}, {"protocol": {"config": {"epochs": 3}}}
    records = [
        sample("rotnet", 0, 60.0),
        sample("vae", 0, 38.0),
        sample("rotnet", 0, 35.0, parts=knn),
        sample("rotnet", 0, 99.0, parts=other),
    ]
    shown = page(entries(*records), [], tmp_path)
    (glance,) = (t for name, t in tables(shown).items() if name.startswith("At a glance"))
    row = glance.set_index("method").loc["**`rotnet`**"]
    assert row["linear@1 (epochs=100): top1 % ↑"].startswith("60.00")
    assert row["linear@1 (epochs=3): top1 % ↑"].startswith("99.00")
    assert row["knn@1: top1 % ↑"].startswith("35.00")


def test_a_glance_is_of_one_family_of_protocols(sample: Sample, tmp_path: Path) -> None:
    records = [
        sample(method, 0, 60.0, parts={"protocol": {"name": name, "config": {}}})
        for method in ("rotnet", "vae")
        for name in ("linear", "knn", "calibration", "robustness", "finetune", "label_fraction")
    ]
    shown = tables(page(entries(*records), [], tmp_path))
    glances = {name: list(table) for name, table in shown.items() if name.startswith("At a")}
    assert len(glances) == 2  # of one protocol there is nothing to see at a glance
    for name, columns in glances.items():
        assert any("linear" in column for column in columns) == ("frozen" in name)
        assert any("calibration" in column for column in columns) == ("trust" in name)
        assert not any("label_fraction" in column for column in columns)
