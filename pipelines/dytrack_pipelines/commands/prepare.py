"""Turn a dataset as its owner published it into the clips that training reads.

    dytrack prepare --dataset got10k --root /data/GOT-10k --split train --out /data/clips

Hardware: CPUs and a disk; the images are decoded, cut and encoded over every core that Ray
knows, on one machine or on many (``RAY_ADDRESS``). Time: some seconds to start, then about as
fast as the JPEG decoder; the 60 made sequences of the demo take about 5 s. Run it again after an
interruption: finished files are kept.
"""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from dytrack_pipelines.terminal.options import AsJson, DryRun

if TYPE_CHECKING:
    from dytrack_platform.datasets.prepared.preparation import Preparation


def prepare(
    dataset: Annotated[str, typer.Option(help="Layout of the source: got10k, lasot, video, ...")],
    root: Annotated[str, typer.Option(help="Folder or URL that the dataset's owner published")],
    out: Annotated[str, typer.Option(help="Folder or URL that gets the clips")],
    split: Annotated[
        str | None, typer.Option(help="The dataset's split; its default where left out")
    ] = None,
    search_size: Annotated[
        int,
        typer.Option(min=8, max=4096, help="Largest search crop that training will use, in pixels"),
    ] = 256,
    search_factor: Annotated[
        float, typer.Option(help="Side of that crop over the root of the target's area")
    ] = 4.0,
    frames: Annotated[int, typer.Option(min=2, max=10_000, help="Frames in a clip")] = 16,
    span: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Frames of the sequence a clip spreads over")
    ] = 200,
    quality: Annotated[
        int, typer.Option(min=1, max=100, help="JPEG quality of the stored windows")
    ] = 90,
    centre_jitter: Annotated[
        float, typer.Option(help="Largest data.centre_jitter that training may use")
    ] = 3.0,
    scale_jitter: Annotated[
        float, typer.Option(help="Largest data.scale_jitter that training may use")
    ] = 0.25,
    smallest_side: Annotated[
        float, typer.Option(help="Leave out targets with a shorter side, in pixels (COCO: 50)")
    ] = 0.0,
    sequences_per_shard: Annotated[
        int,
        typer.Option(
            min=0, max=1_000_000, help="Sequences in a file, about; 0 chooses by their length"
        ),
    ] = 0,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Write every file anew, whatever is there")
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Prepare a dataset: Parquet clips, a manifest, and a list of what had to be rejected."""
    from dytrack_pipelines.terminal import screen
    from dytrack_pipelines.terminal.progress import preparation_bar
    from dytrack_platform.datasets.prepared.preparation import plan_preparation
    from dytrack_platform.datasets.prepared.windows import ClipConfig
    from dytrack_platform.errors import DataError
    from dytrack_platform.experiment import ingest
    from dytrack_platform.storage.job import require_kept

    require_kept("--out", out)
    config = ClipConfig(
        frames=frames,
        span=span,
        search_size=search_size,
        search_factor=search_factor,
        centre_jitter=centre_jitter,
        scale_jitter=scale_jitter,
        quality=quality,
        smallest_side=smallest_side,
        sequences_per_shard=sequences_per_shard,
    )
    if dry_run:
        _foretell(
            plan_preparation(dataset, root, split, out, config, fresh=fresh, write=False), as_json
        )
        return
    with preparation_bar(f"{dataset} {split or ''}".strip()) as report:
        done = ingest.prepare(dataset, root, split, out, config, fresh=fresh, report=report)
    if not done.clips:
        raise DataError(f"{root}: not one clip could be made{ingest.first_reject(done.folder)}")
    screen.say(
        f"{done.folder}: {done.clips} clips with {done.frames} frames of {done.sequences} sequences"
    )
    if done.rejects:
        screen.say(f"{done.rejects} rejects, listed in {done.folder}/rejects.jsonl")
    if as_json:
        screen.json(asdict(done))


def _foretell(preparation: "Preparation", as_json: bool) -> None:
    """Say what a preparation would write, and what it costs."""
    from dytrack_pipelines.terminal import screen
    from dytrack_platform.datasets.prepared.forecast import preparation_cost

    cost = preparation_cost(preparation)
    unknown = "unknown: no frame could be cut"
    size, core = cost.disk_bytes, cost.core_seconds
    rows = [
        ["sequences", f"{cost.sequences:,}; {cost.too_small} too small, {cost.rejects} rejects"],
        ["files", f"{cost.shards:,}, {cost.finished} of them are there"],
        ["clips to cut", f"{cost.clips:,} with {cost.frames:,} frames"],
        ["disk", unknown if size is None else f"about {size / 1e6:,.1f} MB"],
        ["time", unknown if core is None else f"about {screen.clock(core)} of one core"],
        ["writes to", cost.folder],
    ]
    screen.table(f"{preparation.dataset}: what preparing it comes to", ["what", ""], rows)
    screen.say(f"disk and time are estimates from {cost.sampled} frames, cut here and not written")
    if as_json:
        screen.json(asdict(cost))
