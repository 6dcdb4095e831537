"""A suite of runs: what is done, what is left, and doing it; a failed cell never stops the rest."""

from __future__ import annotations

import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from bench import files, record, runner
from bench.data import catalog
from bench.data.dataset import DataOptions, DataSet
from bench.errors import AbsentError, BenchError, BusyError
from bench.progress import Reporter
from bench.record import Record
from bench.resolve import Resolved, data_options
from bench.suite import Block, Suite

State = Literal["left", "done", "failed", "busy", "absent"]
MARKS: dict[State, str] = {
    "done": "green",
    "left": "dim",
    "failed": "bold red",
    "busy": "yellow",
    "absent": "dim",
}
WAIT = 5.0  # seconds before cells that other processes are at are tried again
LOADED = 3  # data sets kept in memory: cells of one follow one another


@dataclass
class Cell:
    """One run of a suite, and what has become of it."""

    block: Block
    target: str | None  # the data to evaluate on, where they are not those of pretraining
    resolved: Resolved | None = None  # None: its data are not here, or it cannot be decided
    state: State = "left"
    message: str = ""
    record: Record | None = None

    @property
    def busy(self) -> bool:
        """Whether another process is at it."""
        return self.state == "busy"

    @property
    def data(self) -> str:
        """Where the numbers are measured."""
        return self.target or self.block.data

    def title(self) -> str:
        """The cell in a line."""
        if self.resolved is None:
            return f"{', '.join(self.block.methods)} on {self.data}"
        one = self.resolved
        changed = "".join(f", {key}={value}" for key, value in one.changed().items())
        pretrained = f" (pretrained on {self.block.data})" if self.target else ""
        return (
            f"{one.method_name}{changed} on {self.data}{pretrained}, {one.protocol_name}, "
            f"backbone {one.backbone}, seed {one.seed}"
        )


class Sweep:
    """The cells of a suite over one results folder.

    Several processes may sweep the same suite: each passes over what another is pretraining.
    """

    def __init__(self, suite: Suite, results: Path, reporter: Reporter) -> None:
        self.suite, self.results, self.reporter = suite, results, reporter
        self.log = files.cache_root() / "sweep.log"
        self._diverged: dict[str, str] = {}  # pretraining -> what its record says
        self._load: Callable[..., DataSet] = lru_cache(maxsize=LOADED)(self._read)
        for block in suite.runs:
            block.check_names()
        self.cells = [cell for block in suite.runs for cell in self._cells(block)]
        for cell in self.cells:
            self._look(cell)

    def run(self, resume: bool = True) -> bool:
        """Do what is left; whether every cell ended well (absent data are no failure)."""
        while todo := [cell for cell in self.cells if cell.state in ("left", "busy")]:
            if all(cell.state == "busy" for cell in todo):
                time.sleep(WAIT)
            for cell in todo:
                self._look(cell)
                if cell.state in ("left", "busy"):
                    self._do(cell, resume)
        return not any(cell.state == "failed" for cell in self.cells)

    def _cells(self, block: Block) -> Iterator[Cell]:
        for target in block.eval_data or (None,):
            whole = Cell(block, target)
            with self._guarded(whole):
                size = self._data(block, block.data).info.size
                if target:
                    self._data(block, target)
                for resolved in block.runs(size):
                    yield Cell(block, target, resolved)
            if whole.state != "left":
                yield whole

    @contextmanager
    def _guarded(self, cell: Cell) -> Iterator[None]:
        """What goes wrong with a cell is told in it, and stops no other."""
        try:
            yield
        except BusyError:
            cell.state = "busy"
        except AbsentError as error:
            cell.state, cell.message = "absent", str(error)
        except BenchError as error:
            cell.state, cell.message = "failed", str(error)
        except Exception as error:  # whatever it is, the other cells are worth having
            cell.state = "failed"
            cell.message = f"{type(error).__name__}: {error} (traceback in {self.log})"
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("a", encoding="utf-8") as log:
                log.write(f"{record.now()} {cell.title()}\n{traceback.format_exc()}\n")

    def _data(self, block: Block, name: str) -> DataSet:
        own = name == block.data
        return self._load(name, block.data_root, block.limit if own else None, block.set)

    def _read(
        self, name: str, root: Path | None, limit: int | None, pairs: tuple[str, ...]
    ) -> DataSet:
        given = Block(methods=("pixels",), data_root=root, limit=limit, set=pairs)
        options: DataOptions = data_options(given.overrides()["data"])
        data = catalog.load(name, options)
        for line in options.log:
            self.reporter.line(escape(line))
        return data

    def _both(self, cell: Cell) -> tuple[DataSet, DataSet | None]:
        target = self._data(cell.block, cell.target) if cell.target else None
        return self._data(cell.block, cell.block.data), target

    def _look(self, cell: Cell) -> None:
        """Whether a record of the cell is there already, of this sweep or any other run."""
        if cell.resolved is None or cell.state in ("done", "failed"):
            return
        with self._guarded(cell):
            plan = runner.plan(cell.resolved, *self._both(cell))
            path = plan.path(self.results, cell.resolved)
            if path.exists():
                self._take(cell, record.read(path), plan.pretraining_id)
            elif plan.pretraining_id in self._diverged:
                cell.state, cell.message = "failed", self._diverged[plan.pretraining_id]

    def _do(self, cell: Cell, resume: bool) -> None:
        assert cell.resolved is not None
        cell.state, started = "left", time.monotonic()
        with self._guarded(cell):
            data, target = self._both(cell)
            outcome = runner.run(
                cell.resolved, data, self.results, self.reporter, resume=resume, target=target
            )
            self._take(cell, outcome.record, outcome.record.pretraining.id)
            if cell.state == "left":
                cell.state, cell.message = "failed", outcome.record.message or ""
        if not cell.busy:
            self._tell(cell, time.monotonic() - started)

    def _take(self, cell: Cell, found: Record, pretraining: str) -> None:
        """Note what a record says; one that ran out of memory, say, is tried again."""
        if found.status in ("ok", "collapsed"):
            cell.state, cell.record = "done", found
        elif found.status == "diverged":  # as would every other protocol's run of it
            cell.state, cell.record = "failed", found
            cell.message = self._diverged[pretraining] = found.message or "it diverged"

    def _tell(self, cell: Cell, seconds: float) -> None:
        counts = Counter(one.state for one in self.cells)
        place = f"[dim]\\[{len(self.cells) - counts['left'] - counts['busy']}/{len(self.cells)}][/]"
        result = _value(cell) or f"[bold red]failed[/]: {escape(cell.message)}"
        self.reporter.line(f"{place} {escape(cell.title())}: {result} [dim]{seconds:.0f} s[/]")


def overview(sweep: Sweep) -> RenderableType:
    """Every cell by data set: methods down, protocols across, and a line on each failure."""
    counts = Counter(cell.state for cell in sweep.cells)
    parts: list[RenderableType] = [
        Text.from_markup(
            f"[bold]{escape(sweep.suite.title)}[/]: {len(sweep.cells)} cells, "
            + ", ".join(f"[{MARKS[s]}]{counts[s]} {s}[/]" for s in MARKS if counts[s])
        )
    ]
    known = [cell for cell in sweep.cells if cell.resolved is not None]
    for data in dict.fromkeys(cell.data for cell in known):
        parts += [Text(), _table(data, [cell for cell in known if cell.data == data])]
    lines = dict.fromkeys(
        f"{cell.state}: {cell.title()}: {cell.message}"
        for cell in sweep.cells
        if cell.state in ("failed", "absent")
    )
    parts += [Text(), *(Text(line) for line in lines)] if lines else []
    return Group(*parts)


def _table(data: str, cells: Sequence[Cell]) -> Table:
    table = Table(title=data, title_justify="left", box=None, pad_edge=False)
    table.add_column("method", style="cyan")
    protocols = list(dict.fromkeys(_column(cell) for cell in cells))
    for protocol in protocols:
        table.add_column(protocol, justify="right")
    for row in dict.fromkeys(_row(cell) for cell in cells):
        members = [cell for cell in cells if _row(cell) == row]
        table.add_row(
            escape(row),
            *(" ".join(_mark(c) for c in members if _column(c) == name) for name in protocols),
        )
    return table


def _row(cell: Cell) -> str:
    assert cell.resolved is not None
    one = cell.resolved
    changed = "".join(f", {key}={value}" for key, value in one.changed().items())
    return f"{one.method_name}{changed}" + (f" · {one.backbone}" if one.backbone != "small" else "")


def _column(cell: Cell) -> str:
    assert cell.resolved is not None
    one = cell.resolved
    settings = one.protocol_cfg.model_dump(mode="json")
    plain = one.protocol.Config().model_dump(mode="json")
    changed = ", ".join(f"{k}={v}" for k, v in settings.items() if v != plain[k])
    return one.protocol_name + (f" ({changed})" if changed else "")


def _mark(cell: Cell) -> str:
    return _value(cell) or f"[{MARKS[cell.state]}]{'·' if cell.state == 'left' else cell.state}[/]"


def _value(cell: Cell) -> str:
    made = cell.record
    if made is None or made.metric.name not in made.metrics:
        return ""
    text = record.number(made.metrics[made.metric.name])
    return text if made.status == "ok" else f"[bold red]{text} {made.status}[/]"
