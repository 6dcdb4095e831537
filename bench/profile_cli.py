"""`bench profile`: speed and memory. Nothing heavy is imported at module level."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.errors import BenchError

if TYPE_CHECKING:
    from rich.console import RenderableType

app = typer.Typer(
    help="Measure speed and memory: of training steps, loss kernels and views.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Results = Annotated[
    Path, typer.Option(envvar="BENCH_RESULTS", help="Folder of the records.", show_default=True)
]
Resume = Annotated[bool, typer.Option(help="Go on with a killed profile of the same settings.")]
WIDTH = 124  # characters of a table


@app.command()
def step(
    context: typer.Context,
    method: Annotated[
        list[str], typer.Option("--method", "-m", help="A name of `bench list`, or a .py file.")
    ] = [],  # noqa: B006  # typer copies it
    every: Annotated[bool, typer.Option("--all", help="Every method there is.")] = False,
    backbone: Annotated[
        str | None, typer.Option(help="Ours, or any timm model; by default the method's own.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.")] = None,
    data: Annotated[str, typer.Option(help="A data set, as NAME or NAME:ARG.")] = "scenes",
    recipe: Annotated[
        str, typer.Option(help="paper, a recipe of the method, or auto: small up to 64 px.")
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, 32 or bf16.")] = "auto",
    compile: Annotated[bool, typer.Option(help="torch.compile the backbone.")] = False,
    kernels: Annotated[str, typer.Option(help="auto, reference or triton.")] = "auto",
    vs: Annotated[
        str | None, typer.Option(help="Take turns with this library's step: lightly.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0, help="Of timed steps, for each method.")] = 5.0,
    set_: Annotated[
        list[str],
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting, e.g. method.lr=0.05."),
    ] = [],  # noqa: B006
    data_root: Annotated[
        Path | None, typer.Option(envvar="BENCH_DATA", help="Folder of data sets.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Keep that many training pictures, class-balanced.")
    ] = None,
    results: Results = Path("results"),
    resume: Resume = True,
) -> None:
    """Time the training step that `bench run` takes, stage by stage, and weigh its memory."""
    from rich.console import Console

    _quiet()
    _alone(context)
    from bench import registry
    from bench.profiling import step_run, step_table
    from bench.profiling.step import Asked

    if bool(method) == every:
        raise BenchError("name a --method (it may be given again), or give --all")
    options = {
        "data": data,
        "backbones": backbone,
        "recipe": recipe,
        "batch_size": batch_size,
        "limit": limit,
        "data_root": data_root,
        "device": device,
        "precision": precision,
        "compile": compile,
        "kernels": kernels,
        "set": set_,
    }
    progress = Console(stderr=True, soft_wrap=True)
    profile, path = step_run.run(
        list(registry.names("methods")) if every else method,
        options,
        Asked(seconds=seconds, peer=vs),
        results,
        lambda text: progress.print(text, highlight=False),
        resume=resume,
    )
    _show(step_table.table(profile), path)


@app.command()
def data(
    context: typer.Context,
    op: Annotated[
        list[str], typer.Option(help="An operation, or SimCLR for its whole augmentation.")
    ] = [],  # noqa: B006
    size: Annotated[int, typer.Option(min=8, help="Pixels of pictures and views.")] = 32,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    pictures: Annotated[
        int | None, typer.Option(min=1, help="How many; by default fewer the larger they are.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0, help="Of timing, for each operation.")] = 5.0,
    results: Results = Path("results"),
    resume: Resume = True,
) -> None:
    """Count views a second, of ours, torchvision, kornia and lightly in turns."""
    from rich.console import Console

    _alone(context)
    from bench.engine import EngineConfig
    from bench.profiling import data_run, data_table
    from bench.resolve import validated

    engine = validated(EngineConfig, {"device": device}, "the engine").resolved()
    progress = Console(stderr=True, soft_wrap=True)
    profile, path = data_run.run(
        size,
        op,
        engine.fabric().device,
        seconds,
        results,
        lambda text: progress.print(text, highlight=False),
        count=pictures,
        resume=resume,
    )
    _show(data_table.table(profile), path)


def _show(table: RenderableType, path: Path) -> None:
    """Print a profile's tables, as wide as they need to be."""
    from rich.console import Console

    console = Console()
    console.width = max(console.width, WIDTH)
    console.print(table)
    console.print(f"record {path}", style="dim", highlight=False, soft_wrap=True)


@app.command()
def losses(
    context: typer.Context,
    op: Annotated[
        list[str], typer.Option(help="ntxent, dino, ...; by default all, may be given again.")
    ] = [],  # noqa: B006
    batch: Annotated[list[int], typer.Option(help="N; by default some for each op.")] = [],  # noqa: B006
    dim: Annotated[list[int], typer.Option(help="D, of embeddings.")] = [],  # noqa: B006
    keys: Annotated[list[int], typer.Option(help="K: prototypes, queue or bank.")] = [],  # noqa: B006
    dtype: Annotated[list[str], typer.Option(help="float32, bfloat16 or float16.")] = [],  # noqa: B006
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    seconds: Annotated[float, typer.Option(min=0, help="Of timing, for each op and size.")] = 3.0,
    memory: Annotated[
        str, typer.Option(help="In which the largest batch is looked for; on a CPU for all.")
    ] = "8GiB",
    peers: Annotated[bool, typer.Option(help="Other libraries, where installed.")] = True,
    fit: Annotated[bool, typer.Option(help="Look for the largest batch in --memory.")] = True,
    results: Results = Path("results"),
    resume: Resume = True,
) -> None:
    """Time every loss kernel against plain torch, torch.compile and peers, and weigh its memory."""
    from rich.console import Console

    _quiet()
    _alone(context)
    from bench.engine import EngineConfig
    from bench.profiling import losses as profiling
    from bench.profiling.losses_asked import asked
    from bench.profiling.losses_table import WIDE, table
    from bench.record import profiles
    from bench.resolve import validated

    on = validated(EngineConfig, {"device": device}, "the engine").resolved().fabric().device
    wanted = asked(
        ops=op,
        batches=batch,
        dims=dim,
        keys=keys,
        dtypes=dtype,
        seconds=seconds,
        memory=memory,
        peers=peers,
        fit=fit,
        cuda=on.type == "cuda",
    )
    console, progress = Console(), Console(stderr=True, soft_wrap=True)
    console.width = max(console.width, WIDE)

    def tell(text: str) -> None:
        progress.print(text, highlight=False)

    broken = []
    for profile, name in profiling.run(wanted, on, results, tell, resume=resume):
        console.print(table(profile, name))
        path, broken = profiles.path_of(results, profile), profiling.broken(profile)
    console.print(f"record {path}", style="dim", highlight=False, soft_wrap=True)
    if broken:
        raise BenchError(f"of our own kernels, {', '.join(broken)} failed; the record says how")


def _alone(context: typer.Context) -> None:
    """Hold, until the command ends, a lock that another one with these options has to have.

    Raises:
        BusyError: it runs already; two would write over each other's rows.
    """
    from bench import files, pretraining
    from bench.record import run_id

    asked = {key: str(value) for key, value in context.params.items()}
    asked["results"] = str(context.params["results"].resolve())
    name = f"profile-{run_id({'command': context.info_name, **asked})}.lock"
    context.with_resource(pretraining.locked(files.cache_root() / "running" / name))


def _quiet() -> None:
    """Keep torch from warning that it did not watch memory all along; it reads this when loaded."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
