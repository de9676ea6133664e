"""The table of milliseconds: taken once, of what was asked for, and refused where it is damaged."""

import json

import pytest

from dytrack_model.config import variant
from dytrack_platform.errors import StorageError
from dytrack_platform.experiment.search.points import latency
from dytrack_platform.experiment.search.points.latency import Measuring, measured


@pytest.mark.slow
def test_a_table_is_taken_once_for_what_was_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(latency, "_FRAMES", 2)
    model = variant("test")
    reduced = measured(tmp_path, model, Measuring(precision="bf16"))
    own = measured(tmp_path, model, Measuring())  # not what was asked for before
    assert (reduced.precision, own.precision) == ("bf16", "fp32")
    assert measured(tmp_path, model, Measuring()) == own
    assert measured(tmp_path, model, Measuring(precision="fp32")) == own
    assert len(json.loads((tmp_path / latency.TABLE).read_text())) == 2


@pytest.mark.parametrize("text", ["{", "[1]", '[{"machine": "x"}]'])
def test_a_damaged_table_is_one_sentence(tmp_path, text):
    (tmp_path / latency.TABLE).write_text(text)
    with pytest.raises(StorageError, match=r"latency\.json: cannot be read: .*; remove it"):
        measured(tmp_path, variant("test"), Measuring())
