"""Whether all that a search says of itself is the same: screen, JSON, files, page and MLflow."""

import json
from html.parser import HTMLParser

import mlflow
import pytest

from dytrack_platform.config import flatten, load, to_dict
from dytrack_platform.experiment.runs import tracking


def check(folder, record, printed, screen):
    """Compare the numbers of a finished search wherever they stand.

    Args:
        folder: Of the search.
        record: What ``search.json`` holds.
        printed: What ``--json`` gave.
        screen: What a log of the last command shows, which ran the trials from 3 on.
    """
    rows = json.loads((folder / "front.json").read_text())
    details = json.loads((folder / "details.json").read_text())
    page = Page((folder / "front.html").read_text())
    assert printed["members"] == page.data["front"] == rows
    assert page.data["details"] == details
    assert page.data["record"]["trials"] == record["trials"]
    own = mlflow.MlflowClient().get_run(record["run_id"]).data.metrics
    assert printed["hypervolume"] == own["hypervolume"] == details["hypervolume"]
    assert own["on_front"] == sum(row["on_front"] for row in rows) >= 1
    volume = f"hypervolume {details['hypervolume']:.4f}"
    assert f"front, {volume}" in screen
    assert volume in page.text
    assert printed["chosen"] == details["knee"]
    assert f"knee point: {details['knee']}, " in screen
    assert f"knee point {details['knee']};" in page.text
    for row, shown in zip(rows, page.table("members"), strict=True):
        shown_alike(row, shown, screen)
        trial = record["trials"][details["members"][row["name"]]["trial"]]
        promised_alike(row, trial)
        for key in ("iou", "gmacs", "ms"):
            assert own[f"{row['name']}/{key}"] == row[key]
        recipe = folder / f"front/{row['name']}.yaml"
        assert recipe.exists() == row["on_front"]
        if row["on_front"]:
            recipe_alike(row, recipe)
    there = {key for key in own if key[:2].isdecimal() and own[key] == own[key]}
    assert {key[:2] for key in there} == {row["name"] for row in rows}
    for trial, shown in zip(record["trials"], page.table("trials"), strict=True):
        trial_alike(trial, shown, screen, record["run_id"])


def shown_alike(row, shown, screen):
    """Compare a member's row of the page and its line on the screen with ``front.json``."""
    name = row["name"]
    called = f"{name} *" if row["on_front"] else name
    numbers = [
        "-".join(map(str, row["exits"])),
        f"{row['iou']:.3f}",
        f"{row['gmacs']:.4f}",
        f"{row['ms']:.2f}",
    ]
    lines = [[c.strip() for c in line.split("│")] for line in screen.splitlines()]
    (cells,) = [cells for cells in lines if called in cells]
    assert [cell for cell in cells if cell][:5] == [called, *numbers]
    assert shown["member"] == name
    assert shown["on front"] == ("yes" if row["on_front"] else "no")
    assert [shown[key] for key in ("exits", "IoU", "GMACs", "ms")] == numbers
    limits = [t if isinstance(t, str) else f"{t:.3f}" for t in row["policy"]["thresholds"]]
    assert shown["thresholds"] == ", ".join(limits)


def promised_alike(row, trial):
    """Compare a member with what its trial had said of it: both scored the same pairs."""
    limits = [float(t) for t in row["policy"]["thresholds"]]
    (point,) = [p for p in trial["points"] if [float(t) for t in p["thresholds"]] == limits]
    assert point["exits"] == row["exits"]
    assert point["values"]["iou"] == pytest.approx(row["iou"], abs=1e-6)
    assert point["values"]["gmacs"] == pytest.approx(row["gmacs"])


def recipe_alike(row, recipe):
    """Compare a member's recipe with its row."""
    lead = f"IoU {row['iou']:.3f}, {row['gmacs']:.4f} GMACs, {row['ms']:.2f} ms promised."
    assert recipe.read_text().splitlines()[0] == f"# Member {row['name']}: {lead}"
    made = flatten(to_dict(load(recipe)))
    assert {key: made[key] for key in row["changes"]} == row["changes"]


def trial_alike(trial, shown, screen, run_id):
    """Compare a trial's run in MLflow, its row of the page and its line with the record."""
    client = mlflow.MlflowClient()
    name, last = f"trial-{trial['number']:03d}", trial["reports"][-1]
    above = client.get_run(run_id).info.experiment_id
    called = f"AND tags.`mlflow.runName` = '{name}'"
    (run,) = tracking.children(client, run_id, above, called)
    assert run.data.metrics["hypervolume"] == last["hypervolume"]
    assert run.data.metrics["train/loss"] == last["losses"]["loss"]
    steps = client.get_metric_history(run.info.run_id, "hypervolume")
    assert sorted((m.step, m.value) for m in steps) == [
        (report["epoch"], report["hypervolume"]) for report in trial["reports"]
    ]
    assert run.data.tags["outcome"] == trial["status"] == shown["outcome"]
    value = f"{last['hypervolume']:.4f}"
    assert [shown["trial"], shown["epochs"]] == [name, str(last["epoch"])]
    assert shown["hypervolume"] == value
    told = f"{name} {trial['status']}, hypervolume {value} ("
    # Those of an earlier command were told then.
    assert (told in screen) == (trial["number"] >= 3)


class Page(HTMLParser):
    """The text, the tables and the embedded data of a report."""

    def __init__(self, content):
        super().__init__()
        self.text, self._tables, self._table, self._cell = "", {}, None, None
        self._raw, self._in_data = "", False
        self.feed(content)
        self.data = json.loads(self._raw)

    def handle_starttag(self, tag, attrs):
        known = dict(attrs)
        self._in_data = tag == "script" and known.get("id") == "data"
        if tag == "table":
            self._table = self._tables.setdefault(known.get("id"), [])
        elif tag == "tr" and self._table is not None:
            self._table.append([])
        elif tag in ("td", "th") and self._table is not None:
            self._table[-1].append("")
            self._cell = tag

    def handle_endtag(self, tag):
        self._in_data = False
        self._table = None if tag == "table" else self._table
        self._cell = None if tag in ("td", "th") else self._cell

    def handle_data(self, data):
        self.text += data
        if self._in_data:
            self._raw += data
        if self._cell is not None:
            self._table[-1][-1] += data

    def table(self, identifier):
        header, *rows = self._tables[identifier]
        return [dict(zip(header, row, strict=True)) for row in rows]
