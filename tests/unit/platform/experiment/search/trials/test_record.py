"""The record of a search: continued under the same recipe, refused under another."""

import json

import pytest

from dytrack_platform.errors import ConfigurationError, DataError, StorageError
from dytrack_platform.experiment.search.trials.record import SearchRecord

DATA = {"clips": "abc"}


def report(epoch, value):
    point = {
        "exits": [4],
        "thresholds": [],
        "shares": [1.0],
        "values": {"iou": value, "gmacs": 1.0},
    }
    return {
        "epoch": epoch,
        "hypervolume": value,
        "losses": {"loss": 1.0},
        "memory_megabytes": 300.0,
        "points": json.dumps([{**point, "by_sequence": {"a": value}}]),
    }


@pytest.fixture
def begun(tmp_path, recipe):
    record = SearchRecord.open(str(tmp_path), "full", recipe(trials=8), DATA)
    first, second = record.begin({"model.exits": [4]}), record.begin({"model.exits": [1, 4]})
    record.report(first, report(1, 0.5), 2.0)
    record.end(first, "finished")
    record.report(second, report(1, 0.4), 2.0)
    return tmp_path


def test_a_killed_search_knows_what_is_finished_and_what_is_not(begun, recipe):
    again = SearchRecord.open(str(begun), "full", recipe(trials=8), DATA)
    assert [trial.status for trial in again.trials] == ["finished", "running"]
    assert [trial.number for trial in again.unfinished()] == [1]
    assert [p.values["iou"] for p in again.union()] == [0.5, 0.4]


def test_trials_may_grow_and_nothing_else_may_change(begun, recipe):
    assert len(SearchRecord.open(str(begun), "full", recipe(trials=16), DATA).trials) == 2
    with pytest.raises(ConfigurationError, match=r"^search\.seed: was 0 when the search"):
        SearchRecord.open(str(begun), "full", recipe(trials=16, seed=1), DATA)
    space = {"model.exits": {"placements": {"count": [1, 2]}}}
    with pytest.raises(ConfigurationError, match=r"^search\.space\."):
        SearchRecord.open(str(begun), "full", recipe(space=space), DATA)
    with pytest.raises(ConfigurationError, match="holds a search of mode full"):
        SearchRecord.open(str(begun), "supernet", recipe(), DATA)


def test_other_data_are_refused_by_name(begun, recipe):
    with pytest.raises(DataError, match=r"data changed since the search .* began: clips"):
        SearchRecord.open(str(begun), "full", recipe(trials=8), {"clips": "xyz"})


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": 1}'])
def test_a_damaged_record_is_one_sentence(tmp_path, recipe, text):
    (tmp_path / "search.json").write_text(text)
    with pytest.raises(StorageError, match=r"search\.json"):
        SearchRecord.open(str(tmp_path), "full", recipe(), DATA)


def test_points_of_a_failed_trial_do_not_count(begun, recipe):
    record = SearchRecord.open(str(begun), "full", recipe(trials=8), DATA)
    record.end(record.trials[1], "failed", "it raised")
    assert [p.values["iou"] for p in record.union()] == [0.5]


def test_a_report_of_an_epoch_that_is_there_takes_its_place(begun, recipe):
    record = SearchRecord.open(str(begun), "full", recipe(trials=8), DATA)
    record.report(record.trials[1], report(1, 0.6), 1.0)
    record.report(record.trials[1], report(2, 0.7), 2.0)
    assert [r["hypervolume"] for r in record.trials[1].reports] == [0.6, 0.7]


def test_nothing_is_written_where_another_command_took_over(begun, recipe):
    record = SearchRecord.open(str(begun), "full", recipe(trials=8), DATA)
    before = (begun / "search.json").read_bytes()

    def taken():
        raise StorageError("another one took over")

    record.before_write = taken
    with pytest.raises(StorageError, match="took over"):
        record.begin({"model.exits": [2, 4]})
    assert (begun / "search.json").read_bytes() == before
