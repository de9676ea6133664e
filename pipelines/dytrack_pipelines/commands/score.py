"""Score anybody's result files by the rules of one benchmark toolkit.

    dytrack score --protocol lasot-matlab --annotations lasot/annos --absent lasot/absent \
        --attributes lasot/att --results results --json-file scores.json
    dytrack score --protocol vot-multistart --annotations vot2022 --results vot2022/results

Hardware: one core. Time: well under a second a tracker for LaSOT's 280 sequences once the text is
read. Results lie in ``RESULTS/TRACKER/SEQ.txt``, GOT-10k's tree or VOT's. A tracker on which the
toolkit itself would stop gets an error that says where; the others are scored all the same.
"""

from pathlib import Path
from typing import Annotated

import typer

from dytrack_pipelines.terminal import options


def score(
    results: Annotated[Path, typer.Option(help="Folder with a folder of results per tracker")],
    protocol: Annotated[
        str | None, typer.Option(help="Profile, such as lasot-matlab; the dataset's by default")
    ] = None,
    annotations: options.Annotations = None,
    dataset: options.ScoredDataset = None,
    root: options.ScoredRoot = None,
    split: options.ScoredSplit = None,
    absent: options.Absent = None,
    attributes: options.Attributes = None,
    exclude: options.Exclude = None,
    eao: Annotated[
        str | None, typer.Option(help="VOT: lengths LOW,HIGH whose mean is the EAO")
    ] = None,
    experiment: Annotated[
        str | None, typer.Option(help="VOT: folder of the experiment in each tracker's results")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, max=4096, help="Processes that read and measure; not for VOT")
    ] = 1,
    json_file: options.JsonFile = None,
    as_json: options.AsJson = False,
) -> None:
    """Score result files of any tracker by an official protocol."""
    from dytrack_pipelines.terminal import scoring_input, screen
    from dytrack_pipelines.terminal.tables import show_scores, show_unusual
    from dytrack_platform.errors import ResultError
    from dytrack_platform.storage.outputs import check_outputs

    check_outputs({"--json-file": json_file}, [results, annotations, root, absent, attributes])
    # Find the benchmark, its rules and the trackers; then score.
    source = scoring_input.Source(
        annotations=annotations,
        dataset=dataset,
        root=root,
        split=split,
        absent=absent,
        attributes=attributes,
        exclude=tuple(exclude or ()),
    )
    rules = scoring_input.choose_protocol(protocol, source)
    if rules.startswith("vot-"):
        _refuse(rules, {"--workers": workers > 1, "--absent": absent, "--attributes": attributes})
        scored = scoring_input.score_vot_folder(rules, source, results, experiment, eao)
    else:
        _refuse(rules, {"--eao": eao, "--experiment": experiment})
        scored = scoring_input.score_folder(rules, source, results, workers)
    # Keep them, and show them.
    if json_file is not None:
        scoring_input.write_json(json_file, scored)
    show_scores(rules, scored["trackers"])
    show_unusual(scored["unusual"])
    if as_json:
        screen.json(scored)
    # End with an error where a toolkit would have ended.
    if scored["errors"]:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in scored["errors"].items())
        raise ResultError(f"not scored: {reasons}")


def _refuse(rules: str, options: dict[str, object]) -> None:
    """Refuse options that were given and mean nothing to a protocol."""
    from dytrack_platform.errors import ConfigurationError

    for option, given in options.items():
        if given:
            raise ConfigurationError(f"{option}: has no meaning with {rules}; leave it out")
