"""What a person sees while a run goes on: a bar with time left, loss and pictures per second."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Bar:
    """One running bar; `advance` moves it and shows a short text beside it."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def advance(self, steps: int = 1, text: str | None = None) -> None:
        """Move by `steps`, and where `text` is given show it."""
        if text is None:
            self._progress.update(self._task, advance=steps)
        else:
            self._progress.update(self._task, advance=steps, text=text)


class Reporter:
    """Prints lines and bars to a console; `Reporter(quiet=True)` prints nothing."""

    def __init__(self, console: Console | None = None, quiet: bool = False) -> None:
        self.console = Console(quiet=True) if quiet else console or Console(stderr=True)

    def line(self, text: str) -> None:
        """Print one line for the user."""
        self.console.print(text, highlight=False)

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[Bar]:
        """A bar over `total` steps, of which `done` are behind it."""
        with Progress(
            TextColumn("{task.description:<11}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
            console=self.console,
            disable=not self.console.is_terminal,  # a log has lines, not bars
        ) as progress:
            yield Bar(progress, progress.add_task(title, total=total, completed=done, text=""))
