"""How well do inherited weights rank placements as trainings of their own do?

    python -m tests.benchmarks.search_ranking FULL_SEARCH SUPERNET_SEARCH

Both searches have finished, on one recipe. Prints the hypervolume of each placement, the rank
correlation (Spearman), and the regret: what the best placement by inherited weights loses to the
best one of all, as a share of it.
"""

import argparse
import json
from pathlib import Path

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("full", type=Path)
    parser.add_argument("supernet", type=Path)
    given = parser.parse_args()
    record = json.loads((given.full / "search.json").read_text())
    trained: dict[tuple[int, ...], list[float]] = {}
    for trial in record["trials"]:
        if trial["status"] == "finished":
            exits = tuple(trial["changes"]["model.exits"])
            trained.setdefault(exits, []).append(trial["reports"][-1]["hypervolume"])
    rows = json.loads((given.supernet / "inherited.json").read_text())
    inherited = {tuple(row["exits"]): row["hypervolume"] for row in rows}
    both = sorted(set(trained) & set(inherited))
    own = np.array([np.mean(trained[exits]) for exits in both])
    other = np.array([inherited[exits] for exits in both])
    for exits, one, two in zip(both, own, other, strict=True):
        print(f"{'-'.join(map(str, exits)):>8}  trained {one:.5f}  inherited {two:.5f}")
    ranks = [np.argsort(np.argsort(values)).astype(float) for values in (own, other)]
    print(f"{len(both)} placements, Spearman {np.corrcoef(*ranks)[0, 1]:.2f}")
    print(f"regret {1 - own[other.argmax()] / own.max():.2f}")


if __name__ == "__main__":
    main()
