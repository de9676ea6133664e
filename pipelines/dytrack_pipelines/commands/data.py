"""Look at data, check it, and make it.

    dytrack data inspect --dataset lasot --root /data/LaSOT --split test
    dytrack data check --dataset got10k --root /data/GOT-10k --split val
    dytrack data check --prepared /data/clips
    dytrack data preview recipes/tiny.yaml --out pairs.html
    dytrack data synth --out made --split train --sequences 60

Hardware: CPUs and a disk. Time: ``inspect`` reads annotations alone (seconds); ``check`` decodes
every frame (some 500 a second and core); ``synth`` draws about 500 frames of 320x240 a second
and core.
"""

from dataclasses import asdict
from typing import Annotated

import typer

from dytrack_pipelines import recipes
from dytrack_pipelines.terminal import screen
from dytrack_pipelines.terminal.options import AsJson, Overrides

data_app = typer.Typer(help="Look at data, check it, preview pairs, make sequences.")

Dataset = Annotated[
    str | None, typer.Option(help="Layout of a source: got10k, lasot, coco, video, ...")
]
Root = Annotated[str | None, typer.Option(help="Folder or URL that the dataset's owner published")]
Split = Annotated[str | None, typer.Option(help="The dataset's split")]
Prepared = Annotated[str | None, typer.Option(help="Folder that dytrack prepare wrote, instead")]


@data_app.command()
def inspect(
    dataset: Dataset = None,
    root: Root = None,
    split: Split = None,
    prepared: Prepared = None,
    as_json: AsJson = False,
) -> None:
    """Say what is there: counts, target sizes and motion."""
    from dytrack_pipelines.terminal.tables import show_statistics
    from dytrack_platform.datasets import readers
    from dytrack_platform.datasets.prepared import statistics
    from dytrack_platform.datasets.prepared.manifest import partitions

    counted = {}
    if prepared:
        for partition in partitions(prepared, finished=False):
            counted[partition.root] = statistics.of_partition(partition)
            show_statistics(partition.root, counted[partition.root])
    else:
        name, folder = _source(dataset, root)
        title = f"{name} {split or ''} in {folder}"
        counted[title] = statistics.of_sequences(readers.read(name, folder, split))
        show_statistics(title, counted[title])
    if as_json:
        edges = {"size_edges": statistics.SIZE_EDGES, "motion_edges": statistics.MOTION_EDGES}
        screen.json([{"source": title} | asdict(one) | edges for title, one in counted.items()])


@data_app.command()
def check(
    dataset: Dataset = None,
    root: Root = None,
    split: Split = None,
    prepared: Prepared = None,
    frames: Annotated[
        bool, typer.Option(help="Decode every frame of a source, not only its annotations")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """List every fault of a source or of prepared clips; the exit code is 2 if there is one."""
    from itertools import chain

    from dytrack_pipelines.terminal.tables import show_faults
    from dytrack_platform.datasets.prepared.checking import check_partition, check_source
    from dytrack_platform.datasets.prepared.manifest import partitions

    if prepared:
        found = chain.from_iterable(map(check_partition, partitions(prepared, finished=False)))
    else:
        name, folder = _source(dataset, root)
        found = chain(check_source(name, folder, split, frames=frames))
    faults = show_faults(found)
    if as_json:
        screen.json([asdict(fault) for fault in faults])
    if faults:
        raise typer.Exit(2)


@data_app.command()
def preview(
    recipe: Annotated[
        str, typer.Argument(help="Recipe whose data, crops and augmentation to show")
    ],
    out: Annotated[str, typer.Option(help="File to write: .html or .png")] = "pairs.html",
    pairs: Annotated[int, typer.Option(help="How many pairs", min=1, max=100_000)] = 32,
    epoch: Annotated[
        int, typer.Option(help="Epoch whose first pairs to show", min=0, max=1_000_000)
    ] = 0,
    overrides: Overrides = [],  # noqa: B006  (typer copies it)
    as_json: AsJson = False,
) -> None:
    """Write a contact sheet of pairs exactly as training will see them."""
    from itertools import islice

    from dytrack_platform.config import load, parse_override
    from dytrack_platform.datasets.loading.preview import take, write_preview
    from dytrack_platform.datasets.loading.stream import PairStream
    from dytrack_platform.storage.outputs import check_outputs

    source = recipes.find(recipe)
    check_outputs({"--out": out}, [source])
    config = load(source, dict(parse_override(text) for text in overrides))
    size = config.train.batch_size
    stream = PairStream(config.data, config.model, seed=config.seed, batch_size=size)
    batches = list(islice(stream.batches(epoch), -(-pairs // size)))
    stream.close()
    write_preview(out, take(batches, pairs))
    written = min(pairs, size * len(batches))
    screen.say(f"{out}: {written} pairs of epoch {epoch}")
    if as_json:
        screen.json({"file": out, "pairs": written, "epoch": epoch})


@data_app.command()
def synth(
    out: Annotated[str, typer.Option(help="Folder that gets a folder for the split")],
    split: Annotated[str, typer.Option(help="Name of the split")] = "train",
    sequences: Annotated[int, typer.Option(help="How many sequences", min=1, max=1_000_000)] = 60,
    knobs: Annotated[
        list[str],
        typer.Option(
            "--set",
            help="A knob: --set occlusion=0.8 or --set frames=[100,200]. Repeatable.",
        ),
    ] = [],  # noqa: B006  (typer copies it)
    images: Annotated[
        str,
        typer.Option(help="Folder of real images for backgrounds and objects (COCO's layout)"),
    ] = "",
    cutouts: Annotated[
        str,
        typer.Option(
            help="Folder of real things with silhouettes: RGBA files with index.json, or COCO's "
            "layout with masks"
        ),
    ] = "",
    backgrounds: Annotated[
        str, typer.Option(help="Folder of real images that things lie over; --images by default")
    ] = "",
    seed: Annotated[int, typer.Option(help="Seed of everything", min=0, max=2**29)] = 0,
    workers: Annotated[
        int | None, typer.Option(help="Processes; the machine's CPUs by default", min=1, max=4096)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make sequences with known truth, in GOT-10k's layout, as difficult as asked for."""
    from dytrack_pipelines.terminal.progress import counting_bar
    from dytrack_platform.config import parse_override, typed
    from dytrack_platform.datasets.synthetic import SynthConfig, make

    read = typed(dict(parse_override(text) for text in knobs), SynthConfig)
    assert isinstance(read, dict)  # a mapping stays one
    folders = {"images": images, "cutouts": cutouts, "backgrounds": backgrounds}
    config = SynthConfig.from_dict({**read, **folders, "seed": seed})
    with counting_bar(f"making {split}", sequences) as report:
        folder = make(out, config, split, sequences, workers=workers, progress=report)
    screen.say(f"{folder}: {sequences} sequences; read them with --dataset got10k --root {out}")
    if as_json:
        screen.json({"folder": str(folder), "sequences": sequences, "dataset": "got10k"})


def _source(dataset: str | None, root: str | None) -> tuple[str, str]:
    if not dataset or not root:
        raise typer.BadParameter("give --dataset and --root, or --prepared")
    return dataset, root
