import dataclasses

import numpy as np
import pytest

from dytrack_platform.errors import ResultError
from dytrack_platform.evaluation.peers import catalogue
from dytrack_platform.evaluation.peers.contest import hold, processor
from dytrack_platform.evaluation.peers.process import (
    NOWHERE,
    Entry,
    Frames,
    TrackerFailed,
    TrackerProcess,
)


def test_all_follow_everything_and_take_turns(fake, sequences):
    turns = []
    entries = [fake("still"), fake("gap")]
    outcomes = hold(entries, sequences, lambda turn, done, total: turns.append((turn, done, total)))
    assert [o.entry.name for o in outcomes] == ["still", "gap"]
    assert all(list(o.runs) == [s.name for s in sequences] for o in outcomes)
    assert [turn for turn, _, _ in turns[:2]] == ["starting still", "starting gap"]
    turns = turns[2:]
    # Each sequence begins with another tracker.
    assert [turn.split(" on ")[0] for turn, _, _ in turns] == [
        "still",
        "gap",
        "gap",
        "still",
        "still",
        "gap",
    ]
    lengths = np.repeat([len(s) for s in sequences], 2)
    assert [done for _, done, _ in turns] == [0, *np.cumsum(lengths)[:-1]]
    assert {total for _, _, total in turns} == {lengths.sum()}
    assert outcomes[0].about == "fake 1.0"
    run = outcomes[0].runs[sequences[0].name]
    assert (run.result.boxes_xywh == sequences[0].boxes_xywh[0]).all()
    assert run.result.times_s[1:].tolist() == [0.002] * (len(sequences[0]) - 1)
    assert run.result.image_size == (160, 120)
    assert np.isnan(run.lost[0])
    assert run.lost[1:].tolist() == [float(k > 5) for k in range(1, len(sequences[0]))]
    assert outcomes[1].runs[sequences[0].name].result.undecoded == (2,)


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("crash", "its process ended by exit code 1: out of luck"),
        ("error", "MemoryError: Unable to allocate 9 GiB"),
        ("garbage", "answered b'Segmentation', which is no line of the runner"),
        pytest.param("hang", "gave no answer for 1 s", marks=pytest.mark.slow),
    ],
)
def test_a_failure_stays_in_its_row(fake, sequences, mode, words):
    bad, good = hold([fake(mode), fake("still")], sequences[:2], patience_s=1)
    assert list(bad.problems) == [s.name for s in sequences[:2]], "it is started again"
    assert words in bad.problems[sequences[0].name]
    result = bad.runs[sequences[0].name].result
    assert (result.boxes_xywh[:3] == sequences[0].boxes_xywh[0]).all()
    assert (result.boxes_xywh[3:] == NOWHERE).all()
    assert (result.scores[3:] == -np.inf).all(), "the least sure of all"
    assert good.problems == {}


def test_twins_are_refused(fake, sequences):
    with pytest.raises(ResultError, match="two sequences are called"):
        hold([fake()], [sequences[0], sequences[0]])


def test_a_signal_is_named(sequences):
    entry = Entry(name="killed", command=("sh", "-c", "kill -9 $$"))
    (outcome,) = hold([entry], sequences[:1])
    assert outcome.absent == "its process ended by signal SIGKILL"


def test_who_is_not_there_takes_no_part(fake, sequences):
    entries = [
        Entry(name="a", looked_for="a.onnx in peers"),
        fake("missing", hint="; ask somebody"),
        fake("stillborn"),
        Entry(name="d", command=("/no/such/program",)),
        fake("still"),
    ]
    outcomes = hold(entries, sequences[:1])
    assert [o.absent for o in outcomes] == [
        "not found, looked for a.onnx in peers",
        "not found, looked for a tracker that nobody has; ask somebody",
        "MemoryError",
        "/no/such/program: No such file or directory",
        "",
    ]


def test_a_box_without_area_is_kept_from_the_scores(fake, sequences):
    (outcome,) = hold([fake("broken")], sequences[:1])
    result = outcome.runs[sequences[0].name].result
    assert result.broken == (2,)
    assert np.isfinite(result.boxes_xywh).all()


class Archived:
    """Frames that are no files."""

    def __init__(self, frames):
        self._frames = frames

    def path(self, index):
        return f"archive.zip:{index}.jpg"

    def iterate(self):
        for index in range(3):
            yield None if index == 1 else self._frames.read(index)


def test_frames_that_are_no_files_are_copied_and_removed(sequences):
    import cv2

    frames = Archived(sequences[0].frames)
    sequence = dataclasses.replace(
        sequences[0], frames=frames, boxes_xywh=sequences[0].boxes_xywh[:3]
    )
    with Frames(sequence) as source:
        paths = source["images"]
        images = [cv2.imread(path) for path in paths]
        assert images[1] is None
        assert (images[2][..., ::-1] == sequences[0].frames.read(2)).all()
    assert cv2.imread(paths[0]) is None


def test_memory_is_limited(sequences):
    entry = catalogue.peer_entries(["mil"], memory_bytes=64 << 20)[0]
    with TrackerProcess(entry) as process, pytest.raises(TrackerFailed):
        process.start()


def test_the_machine_has_a_name():
    assert processor()
