"""Put several results on one page: ours at some point, a peer's text files, anybody's.

    dytrack compare runs/lasot/results/balanced results/SiamRPN++ --protocol lasot-matlab \
        --annotations lasot/annos --absent lasot/absent --out comparison.html

Hardware: one core. Time: seconds. Each name is a folder of one tracker's files, ``SEQ.txt``; the
others are compared with the first. The intervals come from a paired bootstrap over sequences.
"""

from pathlib import Path
from typing import Annotated

import typer


def compare(
    results: Annotated[
        list[Path], typer.Argument(help="Two folders of results or more, one per tracker")
    ],
    protocol: Annotated[
        str | None, typer.Option(help="One-pass profile; the dataset's by default")
    ] = None,
    annotations: Annotated[
        Path | None, typer.Option(help="Folder of SEQ.txt, or the dataset's own layout")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="In place of --annotations: a dataset to read with --root")
    ] = None,
    root: Annotated[str | None, typer.Option(help="Folder of that dataset")] = None,
    split: Annotated[str | None, typer.Option(help="Split of that dataset")] = None,
    absent: Annotated[
        Path | None, typer.Option(help="Folder of SEQ.txt with a flag per frame, 1 = absent")
    ] = None,
    attributes: Annotated[
        Path | None, typer.Option(help="Folder of SEQ.txt with a row of flags, or a JSON table")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="A sequence to leave out; repeatable")
    ] = None,
    draws: Annotated[int, typer.Option(min=100, help="Bootstrap draws")] = 4000,
    out: Annotated[Path, typer.Option(help="The page; its numbers go beside it as JSON")] = Path(
        "comparison.html"
    ),
) -> None:
    """Compare trackers on one page, with intervals."""
    from dytrack_pipelines import scoring_input, screen
    from dytrack_platform.errors import ResultError
    from dytrack_platform.evaluation import comparison
    from dytrack_platform.evaluation.profiles import profile
    from dytrack_platform.evaluation.scoreboard import score_results

    # Find the benchmark, its rules and the trackers.
    source = scoring_input.Source(
        annotations=annotations,
        dataset=dataset,
        root=root,
        split=split,
        absent=absent,
        attributes=attributes,
        exclude=tuple(exclude or ()),
    )
    rules = profile(scoring_input.choose_protocol(protocol, source))
    trackers = scoring_input.distinct_trackers(results)
    # Score them: an error of one of them makes the comparison pointless.
    board = score_results(rules, scoring_input.load_annotations(source, rules), trackers)
    for name, reason in board.errors.items():
        raise ResultError(f"{name} cannot be compared: {reason}")
    # Draw the intervals, write the page, show the table.
    found = comparison.compare(rules, board.trackers, draws=draws)
    comparison.write_comparison(out, found, board.trackers, board.unusual)
    scoring_input.write_json(out.with_suffix(".json"), found.to_dict())
    rows = [
        [name, f"{s.value:.4f}", f"{s.low:.4f} to {s.high:.4f}"] for name, s in found.scores.items()
    ]
    screen.table(f"{found.measure} by {rules.name}", ["tracker", "score", "95 % interval"], rows)
    screen.say(f"page: {out}")
