"""Command line options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from dytrack_pipelines.media.outputs import STANDARD_OUTPUT
from dytrack_pipelines.terminal import screen


def _for_programs(context: typer.Context, wanted: bool) -> bool:
    """Leave standard output to JSON alone until the command has ended."""
    if wanted:
        # The outermost one: a command whose other words are wrong never closes its own.
        context.find_root().with_resource(screen.people_read_errors())
    return wanted


def rows_for_programs(context: typer.Context, path: Path | None) -> Path | None:
    """Leave standard output to a file's rows where they are to go there."""
    _for_programs(context, path == STANDARD_OUTPUT)
    return path


Recipe = Annotated[
    str, typer.Argument(help="A recipe file, or the name of one that comes with dytrack.")
]
OptionalRecipe = Annotated[
    str | None, typer.Argument(help="A recipe file, or the name of one; left out, they are listed.")
]
Overrides = Annotated[
    list[str],
    typer.Option("--set", help="Change a key of the recipe: --set train.epochs=3. Repeatable."),
]
AsJson = Annotated[
    bool,
    typer.Option(
        "--json",
        callback=_for_programs,
        help="Print JSON and nothing else; what people read goes to standard error.",
    ),
]
JsonFile = Annotated[
    Path | None, typer.Option(help="File that gets what --json prints, with its generator.")
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Check everything, say what it comes to, and write nothing."),
]
_Runtimes = Literal["torch", "compile", "onnx", "openvino"]
Runtime = Annotated[
    _Runtimes | None,
    typer.Option(help="What runs the network; torch, or an export's own, where left out."),
]
LongVideosRuntime = Annotated[
    _Runtimes | None,
    typer.Option(
        help="What runs the network. Where left out: an export's own; openvino where it is "
        "installed and the video has 500 frames or is a camera's; torch."
    ),
]
Precision = Annotated[
    Literal["auto", "fp32", "bf16", "int8"],
    typer.Option(
        help="Arithmetic; auto is the runtime's own choice, and what ran is said. int8: openvino."
    ),
]
Threads = Annotated[int, typer.Option(min=1, max=1024, help="Threads of the network")]
Device = Annotated[str, typer.Option(help="Where PyTorch runs: cpu, or cuda")]
Port = Annotated[int, typer.Option(min=1, max=65535, help="Port on the loopback address")]
Address = Annotated[
    str,
    typer.Option(help="Address of the cluster's dashboard.", envvar="RAY_API_SERVER_ADDRESS"),
]
Annotations = Annotated[
    Path | None, typer.Option(help="Folder of SEQ.txt, or the dataset's own layout")
]
ScoredDataset = Annotated[
    str | None, typer.Option(help="In place of --annotations: a dataset to read with --root")
]
ScoredRoot = Annotated[str | None, typer.Option(help="Folder of that dataset")]
ScoredSplit = Annotated[str | None, typer.Option(help="Split of that dataset")]
Absent = Annotated[
    Path | None, typer.Option(help="Folder of SEQ.txt with a flag per frame, 1 = absent")
]
Attributes = Annotated[
    Path | None, typer.Option(help="Folder of SEQ.txt with a row of flags, or a JSON table")
]
Exclude = Annotated[list[str] | None, typer.Option(help="A sequence to leave out; repeatable")]
