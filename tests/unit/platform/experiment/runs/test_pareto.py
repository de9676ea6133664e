"""Points of runs: one form for all of them, drawn together from MLflow alone."""

import json
import re

import pytest

from dytrack_platform.errors import ConfigurationError, ModelLookupError
from dytrack_platform.evaluation.report.pareto import standard_volume
from dytrack_platform.experiment.runs import pareto, tracking
from dytrack_platform.experiment.runs.pareto import RunPoint, RunPoints


def points(name, accuracy, **given):
    kept = (
        RunPoint(name="fast", accuracy=accuracy - 0.1, gmacs=0.1, ms=2.0),
        RunPoint(name="accurate", accuracy=accuracy, gmacs=1.0, ms=9.0),
        RunPoint(name="exit-2", accuracy=0.99, gmacs=0.05, baseline=True),
    )
    values = {"kind": "evaluate", "measure": "success_auc", "data": "got10k val"}
    values |= {"protocol": "got10k", "machine": "here", "points": kept}
    return RunPoints(name=name, **{**values, **given})


def test_the_standard_volume_is_a_share_and_has_one_reference_for_all():
    assert standard_volume([]) == 0.0
    assert standard_volume([(1.0, 0.01)]) == pytest.approx(1.0)
    # Half of the accuracy at a cost that leaves three of four decades.
    assert standard_volume([(0.5, 0.1)]) == pytest.approx(0.5 * 0.75)
    assert standard_volume([(0.5, 0.1), (0.4, 1.0)]) == pytest.approx(0.5 * 0.75)
    assert standard_volume([(0.5, 1000.0), (float("nan"), 1.0)]) == 0.0


def test_a_runs_metrics_name_every_point_and_baselines_do_not_count():
    own = points("a", 0.7)
    found = own.metrics()
    assert found["fast/success_auc"] == pytest.approx(0.6)
    assert found["accurate/ms"] == 9.0
    assert found["exit-2/success_auc"] == 0.99
    assert found["hypervolume"] == pytest.approx(standard_volume([(0.6, 0.1), (0.7, 1.0)]))


def test_milliseconds_of_two_machines_are_never_on_one_picture(tmp_path):
    runs = [points("a", 0.7), points("b", 0.6), points("c", 0.5, machine="there")]
    runs.append(points("d", 0.5, data="lasot test"))
    written = pareto.draw(tmp_path, runs)
    # A picture for each of the two data sets.
    assert [path.name for path in written] == ["pareto.html", "pareto.png", "pareto-2.png"]
    assert written[1].read_bytes() != written[2].read_bytes()
    text = (tmp_path / "pareto.html").read_text()
    figures = json.loads(re.search(r'id="figures">(.*?)</script>', text, re.DOTALL).group(1))
    names = {key: {t["name"].split(":")[0] for t in f["data"]} for key, f in figures.items()}
    assert names["gmacs-0"] == {"a", "b", "c"}
    assert names["ms-0-0"] == {"a", "b"}
    assert names["ms-0-1"] == {"c: front", "c"} or names["ms-0-1"] >= {"front"}
    assert "lasot test" in text


def test_every_run_lies_within_the_axes(tmp_path):
    """The last run's own range would leave the others outside."""
    pareto.draw(tmp_path, [points("bad", 0.3), points("good", 0.9)])
    text = (tmp_path / "pareto.html").read_text()
    figures = json.loads(re.search(r'id="figures">(.*?)</script>', text, re.DOTALL).group(1))
    for key, figure in figures.items():
        for axis in "xy":
            low, high = figure["layout"][f"{axis}axis"]["range"]
            shown = [v for trace in figure["data"] for v in trace[axis]]
            assert low <= min(shown) <= max(shown) <= high, (key, axis)


def test_runs_of_one_name_are_told_apart():
    runs = [points("evaluate got10k", 0.7), points("evaluate got10k", 0.6), points("c", 0.5)]
    found = pareto.told_apart(runs, ["aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccc"])
    assert [one.name for one in found] == [
        "evaluate got10k aaaaaaaa",
        "evaluate got10k bbbbbbbb",
        "c",
    ]
    with pytest.raises(ConfigurationError, match=r"^a: was named twice"):
        pareto.told_apart(runs[:2], ["a", "a"])


@pytest.mark.slow
def test_points_come_back_from_the_store(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    own = points("a", 0.7)
    with tracking.run("a", kind="evaluate") as run:
        for path in pareto.write(tmp_path / "out", own):
            run.file(path)
    assert pareto.find(run.run_id) == own
    with tracking.run("b", kind="train") as other:
        pass
    with pytest.raises(ModelLookupError, match=r"has no pareto\.json"):
        pareto.find(other.run_id)
    with pytest.raises(ModelLookupError, match="no such run in the store"):
        pareto.find("0" * 32)
