"""What a trial leaves: all of its points, and its tracker however it ended."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from dytrack_model import checkpoint
from dytrack_model.config import variant
from dytrack_model.network import DyTrackNetwork
from dytrack_platform.config import to_dict
from dytrack_platform.experiment.search.points import threshold_front as solving
from dytrack_platform.experiment.search.trials import trial as trials
from dytrack_platform.experiment.search.trials.full import (
    Watching,
    note_finished,
    reason_of,
    run_trials,
)
from dytrack_platform.experiment.search.trials.record import SearchRecord
from dytrack_platform.experiment.search.trials.trial import STATE, TRACKER, Job
from dytrack_platform.training import state as state_files

REFERENCE = (0.3, 4.0)
REST = {"model.recycling": "add", "train.head_lr": 0.001}


@pytest.fixture
def job(recipe, tmp_path):
    return Job(recipe=to_dict(recipe()), reference=REFERENCE, location=str(tmp_path))


def test_the_points_of_a_trial_cover_what_the_trial_reported(cache, costs, recipe):
    search = replace(recipe(thresholds=30).search, members=2)
    solved = solving.solve(cache, [(1, 2, 4)], costs, search, REFERENCE)
    rows = json.loads(json.dumps(trials.points_of(solved, search, REFERENCE)))
    points = [trials.point_from_dict(row) for row in rows]
    assert len(points) > search.members
    covered = solving.volume(points, search.objectives, REFERENCE)
    assert covered == pytest.approx(solved.hypervolume)
    assert all(point.values["iou"] > 0.3 and point.values["gmacs"] < 4 for point in points)


def report(epoch, value=0.5):
    values = {"iou": value, "gmacs": 1.0}
    point = {"exits": [4], "thresholds": [], "shares": [1.0], "values": values, "by_sequence": {}}
    said = {"epoch": epoch, "hypervolume": value, "losses": {}, "memory_megabytes": 1.0}
    return {**said, "points": json.dumps([point])}


def tracker(folder):
    return checkpoint.save(folder, DyTrackNetwork(variant("test")))


def test_a_trial_that_was_stopped_keeps_the_tracker_that_its_points_are_of(job, tmp_path):
    state = tmp_path / "trials/000" / STATE
    kept = tracker(state / state_files.TRACKER)
    (state / state_files.SEAL).write_text("{}")
    weights = (kept / checkpoint.WEIGHTS).read_bytes()
    trials.tidy(job, 0, stopped=True)
    assert not state.exists()
    assert (tmp_path / "trials/000" / TRACKER / checkpoint.WEIGHTS).read_bytes() == weights
    trials.tidy(job, 0, stopped=True)  # once more, after a kill
    assert trials.has_tracker(job, 0)


def test_the_state_of_a_trial_that_failed_goes(job, tmp_path):
    (tmp_path / "trials/000" / STATE).mkdir(parents=True)
    trials.tidy(job, 0, stopped=False)
    assert not (tmp_path / "trials/000" / STATE).exists()
    assert not trials.has_tracker(job, 0)


def test_a_trial_that_left_all_it_had_to_before_a_kill_is_not_repeated(job, tmp_path, recipe):
    config = recipe(trials=1, epochs=2)
    record = SearchRecord.open(str(tmp_path), "full", config, {})
    trial, ended = record.begin({"model.exits": [4], **REST}), []
    record.report(trial, report(2), 1.0)
    watching = Watching(ended=lambda one: ended.append(one.number))
    note_finished(config, job, record, watching)
    assert trial.status == "running"  # its tracker is not there
    tracker(tmp_path / "trials/000" / TRACKER)
    run_trials(config, job, record, watching)  # nothing is left to run
    assert trial.status == "finished"
    assert ended == [0]
    again = SearchRecord.open(str(tmp_path), "full", config, {})
    assert [one.status for one in again.trials] == ["finished"]
    other = again.begin({"model.exits": [2, 4], **REST})
    again.report(other, report(1), 1.0)  # of two epochs
    note_finished(config, job, again, watching)
    assert other.status == "running"


def test_trials_are_scored_on_the_searchs_own_held_out_pairs(recipe_below, tmp_path, monkeypatch):
    """With a jitter of its own a trial would choose how hard its examination is."""
    config = recipe_below(
        tmp_path, data__pairs_per_epoch=8, data__validation_share=0.3, train__batch_size=4
    )
    job = Job(recipe=to_dict(config), reference=(-0.1, 4.0), location=str(tmp_path))
    own = {
        "seed": 7,
        "data.centre_jitter": 0.0,
        "data.max_gap": 1,
        "train.batch_size": 8,
        "model.search_factor": 3.5,
    }
    caches, judged = [], []
    held_out = trials.held_out

    def noted(config, module, device):
        judged.append(config)
        caches.append(held_out(config, module, device))
        return caches[-1]

    monkeypatch.setattr(trials, "held_out", noted)
    for number, changes in enumerate(({}, own)):
        trials.train_lean(job, number, changes, None, lambda metrics: None)
    assert judged[0].data == judged[1].data
    assert judged[0].seed == judged[1].seed
    assert judged[1].model.search_factor == 3.5  # the tracker is the trial's own
    assert caches[0].sequence.tolist() == caches[1].sequence.tolist()
    assert caches[0].names == caches[1].names


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "Failure # 1\n1 worker(s) were killed due to the node running low on memory. Memory on "
            "the node was 27.1GB used / 28.0GB limit\nRefer to the documentation on how to",
            "its node ran out of memory, and Ray ended it; lower search.max_concurrent or "
            "train.batch_size",
        ),
        (
            "The actor died unexpectedly before finishing this task.",
            "its process died: it was killed, or ran out of memory",
        ),
        (
            "Traceback\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
            "it ran out of memory (OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 "
            "GiB.); lower search.max_concurrent or train.batch_size",
        ),
        ("Traceback\nRuntimeError: shapes differ", "RuntimeError: shapes differ"),
    ],
)
def test_why_a_trial_failed_is_one_sentence(tmp_path, text, reason):
    file = tmp_path / "error.txt"
    file.write_text(text)
    assert reason_of(SimpleNamespace(error_file=str(file))) == reason
