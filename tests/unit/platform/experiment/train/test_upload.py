"""What MLflow lacks is delivered to the run that the folder names, of a training or of a search."""

import json

import pytest

from dytrack_platform.errors import ConfigurationError
from dytrack_platform.experiment.train import train


@pytest.fixture
def delivered(monkeypatch):
    calls = []
    monkeypatch.setattr(train, "upload", lambda folder, run: calls.append((folder, run)))
    return calls


@pytest.mark.parametrize("record", ["experiment.json", "search.json"])
def test_the_run_is_found_by_its_record(delivered, tmp_path, record):
    (tmp_path / record).write_text(json.dumps({"run_id": "abc"}))
    assert train.upload_pending(str(tmp_path)) == "abc"
    assert delivered == [(tmp_path, "abc")]


@pytest.mark.parametrize("content", [None, {}, {"run_id": None}])
def test_a_folder_without_a_run_is_refused(delivered, tmp_path, content):
    if content is not None:
        (tmp_path / "search.json").write_text(json.dumps(content))
    with pytest.raises(ConfigurationError, match="holds no run; name the folder of a training or"):
        train.upload_pending(str(tmp_path))
    assert delivered == []
