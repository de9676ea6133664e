import dataclasses
import json
import re

import numpy as np
import pytest

from dytrack_platform.datasets.sequence import VideoSequence
from dytrack_platform.errors import ResultError
from dytrack_platform.evaluation.peers.contest import Outcome
from dytrack_platform.evaluation.peers.process import Entry, followed
from dytrack_platform.evaluation.report.page import DASH
from dytrack_platform.evaluation.report.versus import (
    Setting,
    judge,
    refuse_unscorable,
    remarks,
    table_rows,
    title,
    write_versus,
)
from dytrack_platform.evaluation.scoring.profiles import profile

RULES = profile("ostrack-uav")
FRAMES = 11
SETTING = Setting(
    threads=1, machine="a processor", cores=2, load=0.5, date="2026-11-27", remark="Not the same."
)


class NoFrames:
    def path(self, index):
        return f"{index}.jpg"

    def read(self, index):
        return np.zeros((240, 320, 3), np.uint8)


def sequence(name, truth=True):
    boxes = np.tile([50.0, 60.0, 40.0, 40.0], (FRAMES, 1))
    if not truth:
        boxes[1:] = np.nan
    visible = np.isfinite(boxes).all(axis=1)
    return VideoSequence(
        dataset="made", name=name, frames=NoFrames(), boxes_xywh=boxes, visible=visible
    )


def outcome(name, shifts, *, ms=2.0, answers=FRAMES, lost=False, problem="", **entry):
    """Shift the box of each sequence by some pixels from frame 6 on; sure of it before that."""
    runs = {}
    for key, shift in shifts.items():
        lines = [
            {
                "frame": k,
                "box": [50.0 + (shift if k > 5 else 0), 60.0, 40.0, 40.0],
                "score": 0.9 if k <= 5 else 0.4,
                "lost": lost if k <= 5 else None if lost is None else True,
                "exit": -1,
                "ms": ms,
                "decode_ms": 1.0,
                "size": [320, 240],
            }
            for k in range(answers)
        ]
        runs[key] = followed(sequence(key), lines, problem)
    return Outcome(entry=Entry(name=name, **entry), about="x", runs=runs)


def verdict(*outcomes, truth=True, names=("a", "b", "c")):
    return judge("made", outcomes, [sequence(n, truth) for n in names], RULES, SETTING)


def three():
    even = dict.fromkeys("abc", 0.0)
    return (
        outcome("peer-1", dict.fromkeys("abc", 40.0), ms=2.0, lost=None),
        outcome("exit-3", {"a": 10.0, "b": 10.0, "c": 20.0}, ms=5.0, ours=True),
        outcome("peer-2", even, ms=4.0),
        Outcome(entry=Entry(name="gone"), absent="not found, looked for gone.onnx"),
    )


def test_ours_comes_first_and_the_best_peer_is_what_it_is_compared_with():
    found = verdict(*three())
    assert [row["name"] for row in found.rows] == ["exit-3", "peer-1", "peer-2"]
    assert found.best_peer == "peer-2"
    ours, first, best = found.rows
    assert best["iou"] == pytest.approx(1.0)
    assert first["iou"] == pytest.approx(0.5), "half of the ten frames are missed"
    assert ours["iou"] == pytest.approx(np.mean([0.5 + 0.5 * v for v in (0.6, 0.6, 1 / 3)]))
    assert ours["difference"]["value"] == pytest.approx(ours["iou"] - 1.0)
    assert (
        ours["difference"]["low"] <= ours["difference"]["value"] <= ours["difference"]["high"] < 0
    )
    assert best["difference"] is None
    assert [row["ms_p50"] for row in found.rows] == pytest.approx([5.0, 2.0, 4.0])
    assert [row["ratio"] for row in found.rows] == pytest.approx([2.5, 1.0, 2.0])
    assert first["auroc"] == 1.0
    assert best["auroc"] is None, "it never misses"
    assert (first["lost"], ours["lost"]) == (None, 0.5)
    assert best["success_auc"] == pytest.approx(20 / 21)
    assert found.agreement["peer-1"]["peer-2"] == pytest.approx(0.5)
    assert first["agreement"] == pytest.approx(np.mean(list(found.agreement["peer-1"].values())))


def test_the_table_and_what_stands_under_it():
    found = verdict(*three())
    header, rows = table_rows(found)
    assert header[-4:] == ["ms", "x peer-1", "IoU - peer-2", "95 %"]
    assert all(len(row) == len(header) for row in rows)
    assert rows[2][-2:] == [DASH, DASH]
    assert remarks(found) == [
        "gone: not found, looked for gone.onnx",
        "ours ran on x",
        "Not the same.",
    ]
    assert title(found) == (
        "made: 3 sequences, 33 frames, AUC and precision by ostrack-uav; "
        "1 thread of a processor (2 cores, load 0.5 at the start), 2026-11-27"
    )


def test_a_failure_is_marked_and_costs_the_frames_that_are_owed():
    failed = outcome("peer", dict.fromkeys("abc", 0.0), answers=6, problem="its process ended")
    found = verdict(outcome("exit-3", dict.fromkeys("abc", 0.0), ours=True), failed)
    assert found.rows[1]["iou"] == pytest.approx(0.5)
    assert found.rows[1]["auroc"] == 1.0
    assert found.agreement["peer"]["exit-3"] == pytest.approx(0.5)
    assert table_rows(found)[1][1][0] == "peer*"
    assert remarks(found)[0] == (
        "* peer: failed on 3 of 3 sequences, and missed the frames after that; a: its process ended"
    )


def test_one_that_fails_before_the_first_frame_still_has_a_row():
    failed = outcome("peer", dict.fromkeys("abc", 0.0), answers=0, problem="gone")
    found = judge("made", [failed], [sequence(n) for n in "abc"], profile("got10k-uav123"), SETTING)
    assert found.rows[0]["iou"] == 0.0
    assert found.rows[0]["ms_p50"] is None


def test_without_truth_there_is_agreement_in_place_of_scores():
    found = verdict(*three(), truth=False)
    assert found.profile is None
    assert found.best_peer is None
    header, rows = table_rows(found)
    assert header == ["tracker", "agreement", "called lost", "ms", "x peer-1"]
    assert all(len(row) == len(header) for row in rows)
    assert "no truth" in title(found)


def test_sequences_without_truth_are_named():
    mixed = [sequence("a"), sequence("b", truth=False), sequence("c")]
    found = judge("made", three(), mixed, RULES, SETTING)
    assert found.notes == ["without truth, so not scored: b"]
    assert set(found.rows[0]["iou_by_sequence"]) == {"a", "c"}


def test_one_sequence_has_no_interval_and_nobody_else_no_comparison():
    found = verdict(*three(), names=("a",))
    assert all(row["difference"] is None for row in found.rows)
    alone = verdict(three()[1])
    assert alone.best_peer is None
    assert all(len(row) == len(table_rows(alone)[0]) for row in table_rows(alone)[1])


@pytest.mark.parametrize("truth", [True, False])
def test_the_page_holds_all_numbers(tmp_path, truth):
    found = verdict(*three(), truth=truth)
    page = write_versus(tmp_path, found).read_text()
    embedded = re.search(r'id="data"[^>]*>(.*?)</script>', page, re.DOTALL).group(1)
    assert json.loads(embedded) == json.loads(json.dumps(found.to_dict()))
    assert (tmp_path / "versus.png").is_file() == truth
    assert "Not the same." in page


def test_what_cannot_be_scored_is_refused_before_anything_runs():
    damaged = sequence("a")
    damaged.boxes_xywh[3] = np.nan
    refuse_unscorable([dataclasses.replace(damaged)], RULES)
    with pytest.raises(ResultError):
        refuse_unscorable([damaged], profile("ostrack-lasot"))
