import json
import math
import re
import shutil
import subprocess

import numpy as np
import pytest

from dytrack_platform.datasets.sequence import VideoSequence
from dytrack_platform.evaluation.report.figures import pareto_figure
from dytrack_platform.evaluation.report.filmstrip import make_film, time_line
from dytrack_platform.evaluation.report.page import number, table
from dytrack_platform.evaluation.report.report import write_report
from dytrack_platform.evaluation.report.summary import (
    annotate,
    hidden_truth,
    reporting_profile,
    summarise_point,
    summary_json,
)
from dytrack_platform.evaluation.scoring.profiles import PROFILES
from dytrack_platform.evaluation.tracking.oracle import oracle
from dytrack_platform.evaluation.tracking.protocol import SequenceResult

RULES = PROFILES["ostrack-uav"]


class InMemoryFrames:
    def __init__(self, frames):
        self.frames = frames

    def __len__(self):
        return self.frames

    def path(self, index):
        return f"img/{index + 1:04d}.jpg"

    def read(self, index):
        return np.full((60, 80, 3), 40 + index, dtype=np.uint8)

    def iterate(self):
        return map(self.read, range(self.frames))


def sequence(name, frames=20, attributes=("FM",)):
    boxes = np.tile([10.0, 12.0, 20.0, 16.0], (frames, 1))
    boxes[:, 0] += np.arange(frames)
    return VideoSequence(
        dataset="made",
        name=name,
        frames=InMemoryFrames(frames),
        boxes_xywh=boxes,
        visible=np.ones(frames, dtype=bool),
        attributes=attributes,
    )


def result(of, noise, exits, seed=0):
    rng = np.random.default_rng(seed)
    frames = len(of)
    boxes = of.boxes_xywh + rng.normal(0, noise, (frames, 4))
    boxes[:, 2:] = boxes[:, 2:].clip(2)
    taken = np.array([-1, *rng.choice(exits, frames - 1)])
    return SequenceResult(
        name=of.name,
        boxes_xywh=boxes,
        times_s=rng.uniform(0.01, 0.02, frames),
        decode_s=rng.uniform(0.001, 0.002, frames),
        network_ms=np.where(taken < 0, np.nan, 8.0),
        exit_indices=taken,
        scores=np.where(taken < 0, np.nan, rng.uniform(0.3, 0.9, frames)),
        gmacs=np.where(taken < 0, np.nan, 0.5 + taken),
        image_size=(80, 60),
        undecoded=(7,) if of.name == "b<i>" else (),
    )


@pytest.fixture
def evaluation(tmp_path):
    sequences = [sequence("a-1"), sequence("b<i>", 30), sequence("c", 25, ("FM", "OV", "BC"))]
    annotations = {s.name: annotate(s) for s in sequences}

    def point(name, noise, exits, thresholds=None):
        results = [result(s, noise, exits, k) for k, s in enumerate(sequences)]
        return summarise_point(name, results, annotations, RULES, thresholds)

    points = [
        point("fast", 3.0, [0, 1], (0.4, 0.5)),
        point("full", 1.0, [2], (math.inf, math.inf)),
    ]
    baselines = [point("static", 8.0, [-1])]
    summary = summary_json("made", RULES.name, points, baselines, (2, 6))
    films = {
        s.name: make_film(
            s,
            {p.name: p.results[s.name] for p in points},
            {p.name: p.overlaps[s.name] for p in points},
        )
        for s in sequences
    }
    write_report(
        tmp_path, summary=summary, profile=RULES, points=points, baselines=baselines, films=films
    )
    return tmp_path, summary


def test_the_summary_has_the_agreed_keys(evaluation):
    _, summary = evaluation
    agreed = "name thresholds success_auc precision20 norm_precision20 ao sr50 fps ms_p50 gmacs"
    for point in (*summary["points"], *summary["baselines"]):
        assert {*agreed.split(), "exit_share"} <= set(point)
        for key in ("success_auc", "precision20", "norm_precision20", "ao", "sr50"):
            assert 0 <= point[key] <= 1
    assert summary["sequences"] == 3
    assert summary["frames"] == 75
    assert summary["points"][1]["thresholds"] == ["inf", "inf"]
    assert summary["points"][0]["exit_share"] == pytest.approx([0.5, 0.5], abs=0.2)
    assert summary["baselines"][0]["exit_share"] == []
    assert summary["hypervolume"]["value"] > 0
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_the_reports_numbers_equal_the_summarys(evaluation):
    folder, summary = evaluation
    page = (folder / "report.html").read_text()
    embedded = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert json.loads(embedded.group(1)) == summary
    rows = re.search(r'<table id="points">.*?<tbody>(.*?)</tbody>', page, re.S).group(1)
    shown = {
        cells[0]: cells
        for row in rows.split("</tr>")
        if (cells := re.findall(r"<td>(.*?)</td>", row))
    }
    for point in (*summary["points"], *summary["baselines"]):
        cells = shown[point["name"]]
        assert cells[2] == f"{point['success_auc']:.3f}"
        assert cells[5] == f"{point['ao']:.3f}"
        assert cells[8] == f"{point['ms_p50']:.2f}"


def test_the_report_needs_nothing_from_outside(evaluation):
    folder, _ = evaluation
    page = (folder / "report.html").read_text()
    outside = re.sub(r"<script>.*?</script>", "", page, flags=re.S)  # plotly names URLs in text
    assert not re.search(r"""(src|href)=["']https?:""", outside)
    assert (folder / "pareto.png").read_bytes().startswith(b"\x89PNG")


def test_a_name_cannot_break_out_of_the_page(evaluation):
    folder, _ = evaluation
    page = (folder / "report.html").read_text()
    assert "b&lt;i&gt;" in page
    assert "b<i>" not in page


def test_what_was_unusual_is_listed(evaluation):
    _, summary = evaluation
    assert "b<i>: frames that do not decode: 8" in summary["unusual"]


def test_a_split_without_truth_is_told():
    known, hidden = sequence("a"), sequence("b")
    hidden.boxes_xywh[1:] = np.nan
    assert hidden_truth([known, hidden]) is None
    assert "the owner keeps the truth" in hidden_truth([hidden])


def test_every_kind_of_baseline_has_a_mark_of_its_own():
    base = {"success_auc": 0.5, "gmacs": 1.0}
    names = ("exit-1", "random", "oracle", "cv2-MIL")
    figure = pareto_figure([base | {"name": "fast"}], [base | {"name": n} for n in names], "gmacs")
    marks = {trace["marker"]["symbol"] for trace in figure["data"] if "marker" in trace}
    assert len(marks) == 5


def test_speed_is_given_by_every_rule_and_part(evaluation):
    folder, summary = evaluation
    page = (folder / "report.html").read_text()
    rows = re.search(r'<table id="speed">.*?<tbody>(.*?)</tbody>', page, re.S).group(1)
    fast = re.findall(r"<td>(.*?)</td>", rows)[:11]
    point = summary["points"][0]
    assert fast[4] == f"{point['ms_network']:.2f}"
    assert fast[6] == f"{point['ms_start']:.2f}"
    assert fast[8] == f"{point['fps_by_rule']['frames-over-time']:.1f}"
    assert point["fps_by_rule"]["reciprocals"] >= point["fps_by_rule"]["frames-over-time"]


def test_worst_sequences_come_first(evaluation):
    folder, summary = evaluation
    page = (folder / "report.html").read_text()
    table = re.search(r'<table id="sequences">.*?<tbody>(.*?)</tbody>', page, re.S).group(1)
    order = [re.search(r"\.txt\">(.*?)</a>", row).group(1) for row in table.split("</tr>")[:-1]]
    rows = summary["points"][-1]["per_sequence"]
    areas = [rows[name.replace("&lt;", "<").replace("&gt;", ">")]["success_auc"] for name in order]
    assert areas == sorted(areas)


@pytest.mark.slow
def test_chromium_opens_the_report_without_an_error_or_a_request(evaluation, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here")
    folder, _ = evaluation
    log = tmp_path / "net.json"
    run = subprocess.run(
        [
            browser,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-extensions",
            "--disable-sync",
            "--no-first-run",
            "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--log-net-log={log}",
            "--virtual-time-budget=3000",
            "--dump-dom",
            (folder / "report.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    assert 'data-ready="1"' in run.stdout
    assert run.stdout.count("main-svg") >= 7
    assert "CONSOLE" not in run.stderr, run.stderr
    # The browser itself asks its maker for news of its parts, whatever page is open.
    own = (".google.com", ".googleapis.com", ".gvt1.com")
    hosts = set(re.findall(r'"url":"(?:https?|wss?)://([^/:"]+)', log.read_text()))
    assert not {host for host in hosts if not host.endswith(own)}


def test_the_oracle_takes_the_cheapest_exit_that_is_good_enough():
    of = sequence("a", 3)
    fixed = [result(of, 0.0, [k]) for k in range(3)]
    quality = [np.array([0.5, 0.9, 0.2]), np.array([0.5, 0.905, 0.6]), np.array([0.9, 0.9, 0.9])]
    chosen = oracle(fixed, quality, slack=0.01)
    assert chosen.exit_indices.tolist() == [-1, 0, 2]
    assert chosen.gmacs[1:].tolist() == [0.5, 2.5]


def test_a_time_line_has_a_band_for_each_run_of_an_exit():
    line = time_line(np.array([-1, 0, 0, 1, 1, 0]), np.full(6, 0.5))
    assert line.count("<rect") == 3


def test_a_profile_without_all_three_measures_is_replaced_for_reports():
    assert reporting_profile(PROFILES["got10k"]).name == "ostrack-uav"
    assert reporting_profile(PROFILES["pysot-otb"]).name == "pysot-otb"


def test_cells_are_escaped_and_unknown_numbers_are_dashes():
    assert "<td>&lt;a&amp;b&gt;</td>" in table(["a"], [["<a&b>"]])
    assert number(None) == "\N{EN DASH}"
    assert "<th>a&lt;</th>" in table(["a<"], [["1"]])
