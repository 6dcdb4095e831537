"""From the command line's words to a frozen configuration."""

from __future__ import annotations

import pytest

from bench import registry, resolve
from bench.errors import BenchError

ROTNET = registry.method("rotnet")


def test_sets_are_json_or_text() -> None:
    parsed = resolve.parse_sets(["method.angles=[0,180]", "engine.device=cpu", "data.limit=100"])
    assert parsed["method"] == {"angles": [0, 180]}
    assert parsed["engine"] == {"device": "cpu"}
    assert parsed["data"] == {"limit": 100}


@pytest.mark.parametrize(
    ("pair", "fault"),
    [
        ("lr=1", "not of the form"),
        ("method.lr", "not of the form"),
        ("metod.lr=1", "did you mean method"),
    ],
)
def test_a_malformed_set_is_refused(pair: str, fault: str) -> None:
    with pytest.raises(BenchError, match=fault):
        resolve.parse_sets([pair])


def test_a_misspelt_key_suggests_the_nearest() -> None:
    with pytest.raises(BenchError, match="did you mean weight_decay"):
        resolve.method_config(ROTNET, "rotnet", "paper", {"weight_deca": 1})
    with pytest.raises(BenchError, match="did you mean limit"):
        resolve.data_options({"limt": 3})


@pytest.mark.parametrize(
    ("values", "fault"),
    [({"lr": "fast"}, "method rotnet: lr: "), ({"angles": [90, 90]}, "two different angles")],
)
def test_an_invalid_value_names_its_key(values: dict[str, object], fault: str) -> None:
    with pytest.raises(BenchError, match=fault):
        resolve.method_config(ROTNET, "rotnet", "paper", values)


def test_the_papers_name_means_the_papers_defaults() -> None:
    """Gidaris 2018, the official CIFAR-10 configuration."""
    cfg = resolve.method_config(ROTNET, "rotnet", "paper", {})
    assert cfg.model_dump() == {
        "epochs": 200,
        "batch_size": 128,
        "lr": 0.1,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "schedule": "step",
        "angles": (0, 90, 180, 270),
    }
    assert resolve.deviations(ROTNET, cfg) == list(ROTNET.deviations)


def test_every_changed_setting_is_a_listed_deviation() -> None:
    cfg = resolve.method_config(ROTNET, "rotnet", "paper", {"angles": (0, 180), "epochs": 3})
    changed = resolve.deviations(ROTNET, cfg)[len(ROTNET.deviations) :]
    assert changed == ["epochs = 3 (paper: 200)", "angles = 0,180 (paper: 0,90,180,270)"]


@pytest.mark.parametrize(("size", "recipe"), [(32, "small"), (64, "small"), (96, "paper")])
def test_small_pictures_take_the_small_recipe(size: int, recipe: str) -> None:
    assert resolve.pick_recipe("auto", ROTNET, "rotnet", size) == recipe


def test_an_unknown_recipe_suggests_the_nearest() -> None:
    with pytest.raises(BenchError, match="did you mean paper"):
        resolve.pick_recipe("papr", ROTNET, "rotnet", 32)


def test_a_budget_for_all_methods_passes_a_baseline_by() -> None:
    cfg = resolve.method_config(registry.method("pixels"), "pixels", "paper", {"epochs": 9})
    assert cfg.epochs == 0


def test_a_grid_has_every_combination() -> None:
    base = resolve.parse_sets(["method.epochs=3"])
    cells = list(resolve.grid(["method.lr=0.1,0.2", 'method.angles=[[0,90],"all"]'], base))
    assert [(c["method"]["lr"], c["method"]["angles"]) for c in cells] == [
        (0.1, [0, 90]),
        (0.1, "all"),
        (0.2, [0, 90]),
        (0.2, "all"),
    ]
    assert all(cell["method"]["epochs"] == 3 for cell in cells)
    assert base["method"] == {"epochs": 3}
    assert list(resolve.grid([], base)) == [base]


@pytest.mark.parametrize(
    ("pairs", "fault"),
    [
        (["data.limit=100,200"], "run once per data set"),
        (["method.lr=[]"], "names no value"),
        (["method.lr=1", "method.lr=2"], "give it once"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(pairs: list[str], fault: str) -> None:
    with pytest.raises(BenchError, match=fault):
        list(resolve.grid(pairs, resolve.parse_sets([])))


def test_changed_settings_are_those_that_are_not_the_recipes() -> None:
    def changed(recipe: str, **values: object) -> dict[str, object]:
        return resolve.resolve(
            method="rotnet",
            protocol="knn",
            data="scenes",
            size=32,
            backbone="small",
            seed=0,
            recipe=recipe,
            overrides={**resolve.parse_sets([]), "method": values},
        ).changed()

    assert changed("small") == {}
    assert changed("small", epochs=3) == {}  # the budget
    assert changed("small", batch_size=8) == {"batch_size": 8}
    assert changed("small", lr=0.1) == {}  # as the recipe has it
    assert changed("small", angles=[0, 180]) == {"angles": [0, 180]}
    assert changed("paper", schedule="cosine") == {"schedule": "cosine"}
    assert changed("small", schedule="cosine") == {}
