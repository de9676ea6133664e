import json

import mlflow
import pytest

from dytrack_platform.config import resolve
from dytrack_platform.errors import ConfigurationError
from dytrack_platform.experiment.search.front import keep_front
from dytrack_platform.experiment.search.search import search
from dytrack_platform.experiment.search.space import check_space

pytestmark = pytest.mark.ray


def test_a_search_leaves_nested_runs_and_a_front(ray_session, store, values):
    said = []
    searched = search(resolve(values), said.append)
    assert len(searched.trials) == 3
    assert searched.failed == 0
    for trial in searched.trials:
        assert trial.changes["model.exits"] in ([1, 2], [2])
        assert trial.gmacs > 0
    files = keep_front(searched, [True, False, False])
    assert [row["on_front"] for row in json.loads(files[2].read_text())] == [True, False, False]
    client = mlflow.MlflowClient()
    kept = {file.path for file in client.list_artifacts(searched.run_id)}
    assert {"front.png", "front.html", "front.json"} <= kept
    children = mlflow.search_runs(
        experiment_names=["dytrack"],
        filter_string=f"tags.`mlflow.parentRunId` = '{searched.run_id}'",
        output_format="list",
    )
    assert len(children) == 3
    again = search(resolve(values), said.append)
    assert "continuing the search" in said[-1]
    assert {t.iou for t in again.trials} == {t.iou for t in searched.trials}


def test_a_placement_that_is_no_model_is_refused_before_anything_starts(values):
    with pytest.raises(ConfigurationError, match=r"model\.exits: the last one must be the last"):
        check_space(resolve(values, {"search.exits": [[1]]}))
