"""Names, files and entry points."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from bench import registry
from bench.api import Method
from bench.errors import BenchError

FILE = '''"""A method of one's own."""
from bench.api import Untrained


class Mine(Untrained):
    """Nothing is trained."""
'''


def test_every_file_is_a_method_and_says_what_it_is() -> None:
    names = registry.names("methods")
    assert {"rotnet", "random_init", "pixels", "supervised", "pretrained"} <= names.keys()
    assert all(names.values())
    assert all(issubclass(registry.method(name), Method) for name in names)


def test_dashes_and_underscores_are_one() -> None:
    assert registry.method("random-init") is registry.method("random_init")


def test_a_misspelt_name_suggests_the_nearest() -> None:
    with pytest.raises(BenchError, match="did you mean rotnet"):
        registry.method("rotnett")
    with pytest.raises(BenchError, match="did you mean linear"):
        registry.protocol("liner")


def test_a_file_is_a_method(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    assert registry.method(str(path)).__name__ == "Mine"
    assert registry.plain_name(str(path)) == "mine"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("x = 1\n", "defines 0 concrete subclasses"),
        (FILE + FILE.replace("Mine", "Other"), "defines 2 concrete subclasses"),
        ("import no_such_module\n", "cannot be imported: ModuleNotFoundError"),
        ("def broken(:\n", "cannot be imported: SyntaxError"),
    ],
)
def test_a_file_that_is_no_method_is_told_so(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "bad.py"
    path.write_text(text)
    with pytest.raises(BenchError, match=fault):
        registry.method(str(path))


def test_a_missing_file_is_named() -> None:
    with pytest.raises(BenchError, match=r"no such file: nowhere\.py"):
        registry.method("nowhere.py")


def _register(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    point = EntryPoint(name=name, value=value, group="bench.methods")

    def fake(group: str) -> list[EntryPoint]:
        return [point] if group == "bench.methods" else []

    monkeypatch.setattr(registry, "entry_points", fake)


def test_an_entry_point_is_a_method(monkeypatch: pytest.MonkeyPatch) -> None:
    _register(monkeypatch, "theirs", "methods.pixels:Pixels")
    assert "theirs" in registry.names("methods")
    assert registry.method("theirs") is registry.method("pixels")


def test_an_entry_point_may_not_hide_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    _register(monkeypatch, "rotnet", "methods.pixels:Pixels")
    with pytest.raises(BenchError, match="two methods are called 'rotnet'"):
        registry.names("methods")


def test_an_entry_point_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _register(monkeypatch, "theirs", "pathlib:Path")
    with pytest.raises(BenchError, match="no subclass of Method"):
        registry.method("theirs")
