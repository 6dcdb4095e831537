"""The command line. Nothing heavy is imported at module level: help and lists are instant."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench import profile_cli
from bench.errors import BenchError
from bench.profile_cli import Results

if TYPE_CHECKING:
    from bench.data.dataset import DataSet
    from bench.progress import Reporter
    from bench.record import Record
    from bench.resolve import Resolved

app = typer.Typer(
    help="Benchmark and leaderboard for self-supervised learning on images.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

app.add_typer(profile_cli.app, name="profile")


def main() -> None:
    """Run the command line; a `BenchError` is one line on stderr and exit status 2."""
    try:
        app()
    except BenchError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        _fail("interrupted; run the same command again to continue where it stopped", 130)
    except OSError as error:
        import errno

        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _fail("the disk is full; free some space and run the same command again", 2)


def _fail(message: str, status: int = 2) -> None:
    from rich.console import Console

    console = Console(stderr=True, soft_wrap=True)
    console.print(f"[bold red]error:[/] {_escape(message)}", highlight=False)
    sys.exit(status)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


@app.command()
def run(
    method: Annotated[
        list[str], typer.Option("--method", "-m", help="A name of `bench list`, or a .py file.")
    ],
    protocol: Annotated[
        list[str], typer.Option("--protocol", "-p", help="A name of `bench list`, or a .py file.")
    ] = ["linear"],  # noqa: B006  # typer copies it
    data: Annotated[str, typer.Option(help="A data set, as NAME or NAME:ARG.")] = "scenes",
    eval_data: Annotated[
        str | None, typer.Option(help="Evaluate on this data set instead of the pretraining one.")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Ours, or any timm model; by default the method's own.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The first seed.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds to run.")] = 1,
    recipe: Annotated[
        str, typer.Option(help="paper, a recipe of the method, or auto: small up to 64 px.")
    ] = "auto",
    epochs: Annotated[int | None, typer.Option(min=0, help="Instead of the recipe's.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="A local file of weights, for --method pretrained.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, 32 or bf16.")] = "auto",
    compile: Annotated[bool, typer.Option(help="torch.compile the backbone.")] = False,
    kernels: Annotated[
        str, typer.Option(help="Of the losses: auto, reference (plain torch) or triton.")
    ] = "auto",
    data_root: Annotated[
        Path | None, typer.Option(envvar="BENCH_DATA", help="Folder of data sets.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Keep that many training pictures, class-balanced.")
    ] = None,
    set_: Annotated[
        list[str],
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting, e.g. method.lr=0.05."),
    ] = [],  # noqa: B006
    vary: Annotated[
        list[str],
        typer.Option(
            metavar="KEY=V1,V2",
            help="Run once per value; several --vary make a grid. A method's become a study.",
        ),
    ] = [],  # noqa: B006
    results: Results = Path("results"),
    dry_run: Annotated[bool, typer.Option(help="Print the resolved configuration.")] = False,
    resume: Annotated[
        bool, typer.Option(help="Continue a killed run of the same configuration.")
    ] = True,
) -> None:
    """Pretrain a method (or reuse it), evaluate its frozen encoder, write a record."""
    from dataclasses import replace

    from rich.console import Console

    from bench.data import catalog
    from bench.progress import Reporter
    from bench.resolve import data_options, validated
    from bench.suite import Block

    options = {
        "methods": method,
        "protocols": protocol,
        "data": data,
        "eval_data": eval_data or (),
        "backbones": backbone,
        "seed": seed,
        "seeds": seeds,
        "recipe": recipe,
        "epochs": epochs,
        "batch_size": batch_size,
        "limit": limit,
        "data_root": data_root,
        "device": device,
        "precision": precision,
        "compile": compile,
        "kernels": kernels,
        "weights": weights,
        "set": set_,
        "vary": vary,
    }
    block = validated(Block, options, "this run")
    block.check_names()  # a wrong name is told before any data are read
    read = data_options(block.overrides()["data"])
    reporter = Reporter(Console(stderr=True))
    loaded = catalog.load(data, read)
    target = catalog.load(eval_data, replace(read, limit=None)) if eval_data else None
    _tell(read.log, reporter)
    failed = False
    for resolved in list(block.runs(loaded.info.size)):
        if dry_run:
            Console().print_json(data=resolved.tree())
            continue
        record = _run_one(resolved, loaded, target, results, reporter, resume)
        _tell(read.log, reporter)
        failed |= record.status not in ("ok", "collapsed")
    if failed:
        raise typer.Exit(1)


def _tell(log: list[str], reporter: Reporter) -> None:
    """Print what the data had to say since the last time, such as broken pictures."""
    for line in log:
        reporter.line(_escape(line))
    log.clear()


def _run_one(
    resolved: Resolved,
    loaded: DataSet,
    target: DataSet | None,
    results: Path,
    reporter: Reporter,
    resume: bool,
) -> Record:
    from rich.console import Console

    from bench import runner, show

    changed = "".join(f", {key}={value}" for key, value in resolved.changed().items())
    reporter.line(
        f"[bold]{resolved.method_name}[/] ({resolved.recipe} recipe{_escape(changed)}) "
        f"on {loaded.info.name}{f', evaluated on {target.info.name}' if target else ''}, "
        f"backbone {resolved.backbone}, {resolved.protocol_name}@{resolved.protocol.version}, "
        f"seed {resolved.seed}"
    )
    outcome = runner.run(resolved, loaded, results, reporter, resume=resume, target=target)
    console = Console()
    console.print(show.summary(outcome.record, outcome.path, results))
    if outcome.reproduced and outcome.scores is not None:
        console.print(show.reproduction(outcome.record, outcome.scores.metrics))
    return outcome.record


@app.command()
def sweep(
    suite: Annotated[str, typer.Argument(help="A name of `bench list suites`, or a .yaml file.")],
    device: Annotated[
        str | None, typer.Option(help="auto, cpu or cuda, instead of the suite's.")
    ] = None,
    data_root: Annotated[
        Path | None, typer.Option(envvar="BENCH_DATA", help="Folder of data sets.")
    ] = None,
    results: Results = Path("results"),
    dry_run: Annotated[
        bool, typer.Option(help="Show what is done and what is left, and run nothing.")
    ] = False,
    resume: Annotated[bool, typer.Option(help="Continue killed runs where they stopped.")] = True,
) -> None:
    """Run what is left of a suite of methods x protocols x data x seeds."""
    from rich.console import Console

    from bench import suite as suites
    from bench.progress import Reporter
    from bench.sweep import Sweep, overview

    read = suites.read(suite, device=device, data_root=data_root)
    cells = Sweep(read, results, Reporter(Console(stderr=True, soft_wrap=True)))
    console = Console()
    console.print(overview(cells))
    if dry_run:
        return
    ended_well = cells.run(resume)
    console.print(overview(cells))
    if not ended_well:
        raise typer.Exit(1)


@app.command()
def leaderboard(
    results: Results = Path("results"),
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("leaderboard.md"),
    check: Annotated[
        bool, typer.Option("--check", help="Fail where the file is stale or was edited.")
    ] = False,
) -> None:
    """Compute leaderboard.md from the records."""
    from rich.console import Console

    from bench import leaderboard as board

    console = Console(stderr=True, soft_wrap=True)
    for problem in board.problems(results):
        console.print(f"left out: {_escape(problem)}", highlight=False)
    if check:
        faults = board.check(results, out)
        if faults:
            raise BenchError("; ".join(faults))
        console.print(f"{out} is what the records give", highlight=False)
        return
    board.write(results, out)
    console.print(f"wrote {out}", highlight=False)


@app.command("list")
def list_(
    what: Annotated[
        str | None, typer.Argument(help="methods, protocols, data, backbones or suites.")
    ] = None,
) -> None:
    """Name everything there is: methods, protocols, data sets, backbones and suites."""
    from rich.console import Console
    from rich.table import Table

    from bench import backbones, errors, registry
    from bench.data import catalog

    kinds = {
        "methods": lambda: registry.names("methods"),
        "protocols": lambda: registry.names("protocols"),
        "data": catalog.names,
        "backbones": backbones.names,
        "suites": registry.suites,
    }
    if what is not None and what not in kinds:
        raise errors.unknown("list", what, list(kinds))
    console = Console()
    for kind in [what] if what else kinds:
        table = Table(title=kind, title_justify="left", box=None, show_header=False)
        table.add_column(style="cyan", no_wrap=True)
        table.add_column()
        for name, line in kinds[kind]().items():
            table.add_row(_escape(name), _escape(line))
        console.print(table)
        console.print()


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="A record's run id, its beginning, or its path.")],
    results: Results = Path("results"),
    picture: Annotated[
        bool, typer.Option("--picture", help="Draw what the method makes of a few pictures.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="The PNG file of --picture; by default METHOD-RUN.png.")
    ] = None,
) -> None:
    """Print one record in full, or draw its method's picture."""
    from rich.console import Console

    from bench import show as shown

    record, path = shown.find(run, results)
    if not (picture or out):
        Console().print(shown.full(record, path))
        return
    from bench import picture as pictures

    out = pictures.png(out or Path(f"{record.method.name}-{record.run_id}.png"))
    pictures.draw(pictures.of_record(record), pictures.title_of(record), out)
    Console(stderr=True, soft_wrap=True).print(f"wrote {out}", highlight=False)


@app.command()
def new(
    method: Annotated[str, typer.Argument(help="The new method's name, e.g. my_method.")],
    folder: Annotated[Path, typer.Option(help="Where to write the file.")] = Path("methods"),
) -> None:
    """Write a template of a method that passes `bench check`."""
    from rich.console import Console

    from bench import template

    path = template.write(method, folder)
    Console(stderr=True).print(
        f"wrote {path}; try: bench check {path}", highlight=False, soft_wrap=True
    )


@app.command()
def check(
    method: Annotated[str, typer.Argument(help="A name of `bench list`, or a .py file.")],
) -> None:
    """Run the conformance suite on a method."""
    from rich.console import Console

    from bench import conformance

    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # the suite compares bits, on a CPU
    console = Console(soft_wrap=True)
    failed = 0
    for title, fault in conformance.check_method(method):
        failed += fault is not None
        mark = "[green]pass[/]" if fault is None else "[red]FAIL[/]"
        console.print(f"{mark}  {_escape(title)}", highlight=False)
        if fault is not None:
            console.print(f"      {_escape(fault)}", highlight=False)
    if failed:
        raise BenchError(f"{method} fails {failed} of the checks")


if __name__ == "__main__":
    main()
