"""Put several results on one page: ours at some point, somebody's text files, anybody's.

    dytrack compare runs/lasot/results/balanced results/SiamRPN++ --protocol lasot-matlab \
        --annotations lasot/annos --absent lasot/absent --out comparison.html

Hardware: one core. Time: seconds. Each name is a folder of one tracker's files, ``SEQ.txt``; the
others are compared with the first. The intervals come from a paired bootstrap over sequences.
"""

from pathlib import Path
from typing import Annotated

import typer

from dytrack_pipelines.terminal import options


def compare(
    results: Annotated[
        list[Path], typer.Argument(help="Two folders of results or more, one per tracker")
    ],
    protocol: Annotated[
        str | None, typer.Option(help="One-pass profile; the dataset's by default")
    ] = None,
    annotations: options.Annotations = None,
    dataset: options.ScoredDataset = None,
    root: options.ScoredRoot = None,
    split: options.ScoredSplit = None,
    absent: options.Absent = None,
    attributes: options.Attributes = None,
    exclude: options.Exclude = None,
    draws: Annotated[int, typer.Option(min=100, max=1_000_000, help="Bootstrap draws")] = 4000,
    out: Annotated[Path, typer.Option(help="The page; its numbers go beside it as JSON")] = Path(
        "comparison.html"
    ),
    as_json: options.AsJson = False,
) -> None:
    """Compare trackers on one page, with intervals."""
    from dytrack_pipelines.terminal import scoring_input, screen
    from dytrack_platform.errors import ResultError
    from dytrack_platform.evaluation.report import comparison
    from dytrack_platform.evaluation.scoring.profiles import profile
    from dytrack_platform.evaluation.scoring.scoreboard import score_results
    from dytrack_platform.storage.outputs import check_outputs

    numbers = out.parent / f"{out.stem}.json"
    check_outputs(
        {"--out": out, "the numbers beside --out": numbers},
        [*results, annotations, root, absent, attributes],
    )
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
    scoring_input.write_json(numbers, found.to_dict())
    rows = [
        [name, f"{s.value:.4f}", f"{s.low:.4f} to {s.high:.4f}"] for name, s in found.scores.items()
    ]
    screen.table(f"{found.measure} by {rules.name}", ["tracker", "score", "95 % interval"], rows)
    screen.say(f"page: {out}")
    if as_json:
        screen.json({**found.to_dict(), "page": str(out)})
