"""Twenty steps of the recipe ``test`` on the CPU, against losses that are kept as text.

After a change that is meant to alter training, write the file anew and read the difference:

    python -m pytest tests/golden/test_losses.py --write-golden
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.golden import twenty_steps

pytestmark = pytest.mark.slow

FILE = Path(__file__).with_name("losses.txt")
TOLERANCE = 2e-3
"""Relative; a change of the learning rate by one per cent exceeds this from the third step on."""


def test_twenty_steps_give_the_losses_that_they_gave_before(made_clips, pytestconfig):
    told = subprocess.run(
        [sys.executable, "-m", twenty_steps.__name__, str(made_clips)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, **twenty_steps.PLAIN},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    run = json.loads(told.stdout.splitlines()[-1])
    head, losses = run["head"], run["losses"]
    assert len(losses) == run["steps"] == 20
    written = "\n".join([head, *(f"{loss:.5f}" for loss in losses)]) + "\n"
    if pytestconfig.getoption("--write-golden"):
        FILE.write_text(written)
    kept_head, *kept = FILE.read_text().splitlines()
    why = explain(kept_head, head)
    assert len(kept) == len(losses), why
    for step, (loss, expected) in enumerate(zip(losses, kept, strict=True), 1):
        message = f"step {step}: loss {loss:.5f}, kept {expected}. {why}"
        assert loss == pytest.approx(float(expected), rel=TOLERANCE), message


def explain(kept, now):
    """Say where a difference comes from."""
    if kept == now:
        return (
            "Seed, workers and pairs are those of the kept losses: the network, its start, the "
            "losses or the optimiser changed. If that is meant, write the file anew with "
            "--write-golden and say why in the commit."
        )
    if kept.rpartition(", pairs")[0] == now.rpartition(", pairs")[0]:
        return (
            f"The pairs are others than before ({kept!r}, now {now!r}): synthetic sequences, "
            "clips, the order of pairs or the crops changed, not the network. If that is meant, "
            "write the file anew with --write-golden."
        )
    return (
        f"The recipe changed ({kept!r}, now {now!r}). Another seed gives other weights and pairs; "
        "another number of workers gives the same pairs, but each worker's batch norm sees its "
        "own part of a batch. Both change every loss: write the file anew with --write-golden."
    )


def test_a_difference_is_explained():
    kept = "recipe test, seed 0, workers 1, pairs a"
    assert "the optimiser changed" in explain(kept, kept)
    assert "not the network" in explain(kept, kept.replace("pairs a", "pairs b"))
    assert "number of workers" in explain(kept, kept.replace("workers 1", "workers 2"))
