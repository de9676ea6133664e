"""What ends trials early, and what it knows of the trials of earlier commands."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from ray.tune.schedulers import TrialScheduler

from dytrack_platform.experiment.search.trials.halving import RecordedHalving, scheduler
from dytrack_platform.experiment.search.trials.record import SearchRecord
from dytrack_platform.experiment.search.trials.trial import Job, is_halted, tidy

STOP, CONTINUE = TrialScheduler.STOP, TrialScheduler.CONTINUE


def told(epoch, value):
    return {
        "epoch": epoch,
        "hypervolume": value,
        "losses": {},
        "memory_megabytes": 1.0,
        "points": json.dumps([]),
    }


def trial(number, name="of Tune"):
    return SimpleNamespace(trial_id=f"{name} {number}", config={"number": number})


@pytest.fixture
def begun(tmp_path, recipe):
    """A record of four epochs: two trials finished, one stopped, one failed, one interrupted."""
    record = SearchRecord.open(str(tmp_path), "full", recipe(epochs=4), {})
    known = [
        ("finished", [0.5, 0.6, 0.6, 0.7]),
        ("finished", [0.6, 0.6, 0.7, 0.8]),
        ("stopped", [0.3]),
        ("failed", [0.9, 0.9]),
        ("running", [0.7, 0.75]),
    ]
    for status, values in known:
        one = record.begin({"model.exits": [4]})
        for epoch, value in enumerate(values, 1):
            record.report(one, told(epoch, value), 1.0)
        record.end(one, status)
    return record


@pytest.fixture
def job(tmp_path):
    return Job(recipe={}, reference=(0.0, 1.0), location=str(tmp_path))


def rungs(stopping):
    return {at: sorted(known.values()) for at, known in stopping._brackets[0]._rungs}


def test_a_search_that_goes_on_compares_with_what_was_reported_before(begun, recipe, job):
    stopping = scheduler(recipe(epochs=4), begun, job)
    # One that failed counts for nothing.
    assert rungs(stopping) == {4: [0.7, 0.8], 2: [0.6, 0.6, 0.75], 1: [0.3, 0.5, 0.6, 0.7]}
    poor, good = trial(5), trial(6)
    stopping.on_trial_add(None, poor)
    assert stopping.on_trial_result(None, poor, told(1, 0.4)) == STOP
    stopping.on_trial_add(None, good)
    assert stopping.on_trial_result(None, good, told(1, 0.65)) == CONTINUE
    # Without the record the first one had been compared with nobody.
    empty = SearchRecord.open("/nowhere", "full", recipe(epochs=4), {})
    alone = scheduler(recipe(epochs=4), empty, job)
    alone.on_trial_add(None, poor)
    assert alone.on_trial_result(None, poor, told(1, 0.4)) == CONTINUE


def test_a_trial_that_goes_on_is_the_same_one(begun, recipe):
    stopping = RecordedHalving(begun, 4)
    before, again = rungs(stopping), trial(4, "another name in Tune")
    stopping.on_trial_add(None, again)
    # From its last report on: what was decided at 1 and 2 epochs stays.
    assert stopping.on_trial_result(None, again, told(3, 0.1)) == CONTINUE
    assert rungs(stopping) == before
    assert stopping.on_trial_result(None, again, told(4, 0.2)) == STOP
    assert rungs(stopping)[4] == [0.2, 0.7, 0.8]
    stopping.on_trial_complete(None, again, told(4, 0.2))


def test_a_trial_may_be_as_long_as_the_space_says(tmp_path, recipe, job):
    record = SearchRecord.open(str(tmp_path), "full", recipe(), {})
    space = {"train.epochs": {"randint": [2, 9]}}
    assert scheduler(recipe(epochs=4, space=space), record, job)._max_t == 9
    assert scheduler(recipe(epochs=1, space=space), record, job)._max_t == 9
    assert scheduler(recipe(epochs=4), record, job)._max_t == 4


def test_nothing_is_stopped_where_that_is_said_or_there_is_one_epoch(begun, recipe, job):
    for given in ({"epochs": 1}, {"epochs": 4, "scheduler": "none"}):
        assert not isinstance(scheduler(recipe(**given), begun, job), RecordedHalving)


def test_a_trial_with_several_workers_is_asked_to_end_by_a_file(begun, recipe, job):
    """Were it ended by Tune, the training inside of it could keep its CPUs."""
    config = recipe(epochs=4)
    config = replace(config, train=replace(config.train, workers=2))
    stopping, poor = scheduler(config, begun, job), trial(5)
    stopping.on_trial_add(None, poor)
    assert not is_halted(job, 5)
    assert stopping.on_trial_result(None, poor, told(1, 0.4)) == CONTINUE
    assert is_halted(job, 5)
    stopping.on_trial_complete(None, poor, told(1, 0.4))
    tidy(job, 5, stopped=True)
    assert not is_halted(job, 5)
