"""What a supernet's placements are chosen by, and what is written of them."""

from dytrack_platform.experiment.search.points.threshold_front import Point
from dytrack_platform.experiment.search.trials.record import SearchRecord
from dytrack_platform.experiment.search.trials.sampler import ListedSearch
from dytrack_platform.experiment.search.trials.supernet import Inherited, best, worth

REFERENCE = (0.0, 10.0)


def inherited(exits, hypervolume, *points):
    found = (
        Point(exits=exits, thresholds=(), shares=(), values={"iou": iou, "gmacs": gmacs})
        for iou, gmacs in points
    )
    return Inherited(exits=exits, points=tuple(found), hypervolume=hypervolume)


def test_of_equally_many_points_the_larger_hypervolume_counts(recipe):
    found = [
        inherited((1, 4), 1.0, (0.5, 2.0)),
        inherited((2, 4), 3.0, (0.9, 6.0)),
        inherited((4,), 2.0, (0.4, 6.0)),  # beaten
    ]
    assert best(found, recipe(finetuned=1), REFERENCE) == [(2, 4)]
    assert best(found, recipe(finetuned=9), REFERENCE) == [(2, 4), (1, 4)]


def test_trackers_are_written_for_no_more_placements_than_members(recipe):
    found = [inherited((k, 20), 1.0, (0.1 * k, 1.0 * k)) for k in range(1, 10)]
    assert len(worth(found, recipe(members=3), REFERENCE)) == 3
    assert len(best(found, recipe(members=3, finetuned=5), REFERENCE)) == 5


def test_a_supernet_that_failed_is_trained_again_by_the_next_command(tmp_path, recipe):
    record = SearchRecord.open(str(tmp_path), "supernet", recipe(), {})
    record.end(record.begin({"train.epochs": 1}), "failed", "its process died")
    again = ListedSearch(record, [{"train.epochs": 1}])
    assert again.waiting == [0]
    assert again.suggest("a")["number"] == 0
    assert (record.trials[0].status, record.trials[0].reason) == ("running", "")
    record.end(record.trials[0], "finished")
    assert ListedSearch(record, [{"train.epochs": 1}]).waiting == []
