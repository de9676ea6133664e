"""Whether a tracker knew that its target was gone."""

from dataclasses import replace

import numpy as np
import pytest

from dytrack_platform.evaluation.report.report import write_report
from dytrack_platform.evaluation.report.states import StateScore, score_states
from dytrack_platform.evaluation.report.summary import (
    annotate,
    chosen_exits,
    summarise_point,
    summary_json,
)
from tests.unit.platform.evaluation.report.test_report import RULES, result, sequence

STATES = ("", "tracking", "tracking", "doubtful", "lost", "lost", "found again", "tracking")
ABSENT = np.array([False, False, False, True, True, True, True, False])


def told(name="a-1", states=STATES):
    return replace(result(sequence(name, len(states)), 1.0, [0]), states=states)


def test_frames_are_counted_by_truth_and_state():
    score = score_states([told()], {"a-1": ABSENT})
    assert score.present == {"tracking": 3}
    assert score.absent == {"doubtful": 1, "lost": 2, "found again": 1}
    # Two of four absent frames were called lost, and none of the three others.
    assert score.balanced_accuracy() == pytest.approx(0.75)
    assert score.to_dict()["balanced_accuracy_doubtful"] == pytest.approx((0.75 + 1) / 2)


@pytest.mark.parametrize(
    ("states", "absent"), [((), ABSENT), (STATES, None)], ids=["not asked", "nobody knows"]
)
def test_without_states_or_flags_there_is_no_score(states, absent):
    found = score_states([replace(told(), states=states)], {"a-1": absent})
    assert found is None


def test_a_share_of_nothing_is_not_known():
    score = StateScore(present={"tracking": 5}, absent={})
    assert score.to_dict()["balanced_accuracy"] is None


def test_the_report_shows_the_confusion(tmp_path):
    of = replace(sequence("a-1", len(STATES)), visible=~ABSENT, flagged=ABSENT)
    annotations = {"a-1": annotate(of)}
    points = [
        summarise_point("full", [told()], annotations, RULES),
        summarise_point("plain", [replace(told(), states=())], annotations, RULES),
    ]
    summary = summary_json("made", RULES.name, points, [], (2,))
    assert summary["points"][0]["states"]["absent"]["lost"] == 2
    assert summary["points"][1]["states"] is None
    page = write_report(tmp_path, summary=summary, profile=RULES, points=points).read_text()
    assert "Whether the target is there" in page
    rows = page[page.index('id="states"') :]
    assert "<td>0.750</td><td>0.875</td>" in rows[: rows.index("</table>")]


def test_what_a_state_decided_is_not_the_policys_choice():
    """After a doubtful or lost frame comes full depth; random exits are drawn by the others."""
    exits = np.array([-1, 0, 1, 0, 1, 1, 1, 0])
    run = replace(told(), exit_indices=exits)
    assert chosen_exits(run).tolist() == [-1, 0, 1, 0, -1, -1, -1, 0]
    assert chosen_exits(replace(run, states=())).tolist() == exits.tolist()
