"""Turn the trials of real searches into a small table that samplers are compared on.

    python -m tests.benchmarks.search_surrogate SEARCH_FOLDER [SEARCH_FOLDER ...] --out FILE

A row is a trial: the sampler's numbers, and the hypervolume after the first epoch, which every
trial has. Between rows a value is interpolated; test_samplers.py of the searches says how.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from dytrack_platform.config import resolve
from dytrack_platform.experiment.search.space import Space


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    rows, ranges = [], {}
    for folder in given.folders:
        record = json.loads((folder / "search.json").read_text())
        space = Space(resolve(record["recipe"]))
        ranges = {key: asdict(one) for key, one in space.ranges().items()}
        rows += [
            {"numbers": space.encode(t["changes"]), "hypervolume": t["reports"][0]["hypervolume"]}
            for t in record["trials"]
            if t["reports"]
        ]
    given.out.write_text(json.dumps({"ranges": ranges, "rows": rows}, indent=1) + "\n")
    print(f"{len(rows)} trials: {given.out}")


if __name__ == "__main__":
    main()
