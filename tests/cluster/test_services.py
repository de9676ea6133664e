"""Everything from a laptop: jobs on a cluster, MLflow on PostgreSQL, data and runs in a bucket.

The cluster is two hosts that have dytrack's dependencies only, with a token; where namespaces
cannot be had, it is one host on loopback.
"""

import contextlib
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from tests.cluster import hosts
from tests.cluster.bare import bare_environment
from tests.cluster.services import BUCKET, DYTRACK, KEYS, Head, Services, free_port, rclone, why_not

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def folder():
    folder = Path(tempfile.mkdtemp(prefix="dyts", dir="/tmp"))  # sockets' paths may not be long
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def two_hosts(folder):
    if hosts.why_not():
        yield None
        return
    made = hosts.Hosts(2, folder, programs=bare_environment())
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def services(folder, two_hosts):
    reason = why_not()
    if reason:
        pytest.skip(reason)
    running = Services(folder, "127.0.0.1" if two_hosts is None else two_hosts.join())
    try:
        yield running.start_all()
    finally:
        running.close()


@pytest.fixture(scope="module")
def head(services, two_hosts):
    """A head that has the secrets of the store."""
    ray, log = services.folder / "ray", services.folder / "head.log"
    head = Head(ray, log, services.environment, cpus=3 if two_hosts is None else 1, hosts=two_hosts)
    head.start()
    try:
        yield head
    finally:
        head.close()


@pytest.fixture
def dytrack(services, tmp_path):
    def run(*words, **settings):
        done = subprocess.run(
            [*DYTRACK, *map(str, words)],
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**services.environment, "MLFLOW_TRACKING_URI": services.mlflow, **settings},
            cwd=tmp_path,
        )
        assert "hush" not in done.stdout + done.stderr
        return done

    return run


def _recipe(services, name):
    return {
        "name": name,
        "model": {"variant": "test", "depth": 2, "exits": [1, 2], "width": 32, "heads": 2},
        "data": {
            "train": [{"path": f"s3://{BUCKET}/clips"}],
            "pairs_per_epoch": 80,
            "validation_pairs": 8,
            "pairs_per_clip": 4,
        },
        "train": {
            "epochs": 3,
            "batch_size": 8,
            "storage": f"s3://{BUCKET}/runs",
            "checkpoint_steps": 5,
            "report_steps": 1,
        },
    }


@pytest.fixture(scope="module")
def clips(services, head, made, tmp_path_factory):
    """Clips that a job prepared, in the bucket."""
    words = ["prepare", "--dataset", "got10k", "--root", made, "--split", "train"]
    words += ["--out", f"s3://{BUCKET}/clips", "--search-size", 128, "--frames", 8]
    done = subprocess.run(
        [*DYTRACK, "submit", "--address", head.address, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**services.environment, "MLFLOW_TRACKING_URI": services.mlflow},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return f"s3://{BUCKET}/clips"


def test_from_raw_data_to_boxes_on_the_laptop(dytrack, services, head, clips, made, tmp_path):
    recipe = tmp_path / "far.yaml"
    recipe.write_text(yaml.safe_dump(_recipe(services, "far")))
    submit = ("submit", "--address", head.address)
    trained = dytrack(*submit, "train", recipe)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    published = dytrack(*submit, "publish", f"s3://{BUCKET}/runs/far")
    assert published.returncode == 0, published.stdout + published.stderr
    evaluated = dytrack(
        *(*submit, "evaluate", "--model", "models:/dytrack@candidate", "--dataset", "got10k"),
        *("--root", made, "--split", "test", "--out", tmp_path / "results", "--point", "balanced"),
    )
    assert evaluated.returncode == 0, evaluated.stdout + evaluated.stderr
    assert (tmp_path / "results" / "report.html").is_file()
    promoted = dytrack(
        *("publish", f"s3://{BUCKET}/runs/far", "--evaluation", tmp_path / "results", "--promote")
    )
    assert promoted.returncode == 0, promoted.stdout + promoted.stderr
    # The champion comes to the laptop through the server.
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (96, 64))
    for _ in range(6):
        writer.write(np.zeros((64, 96, 3), np.uint8))
    writer.release()
    tracked = dytrack(
        *("track", "v.avi", "--init", "10,10,20,20", "--model", "models:/dytrack@champion"),
        *("--point", "full", "--csv", "boxes.csv"),
    )
    assert tracked.returncode == 0, tracked.stdout + tracked.stderr
    assert len((tmp_path / "boxes.csv").read_text().splitlines()) == 7


def test_a_search_leaves_its_state_and_its_front_in_the_bucket(
    dytrack, services, head, clips, tmp_path
):
    recipe = tmp_path / "sought.yaml"
    values = _recipe(services, "sought")
    values["train"] |= {"epochs": 1, "batch_size": 4}
    values["data"]["validation_share"] = 0.3
    values["search"] = {
        "trials": 2,
        "scheduler": "none",
        "space": {"train.head_lr": {"loguniform": [1e-4, 1e-2]}},
    }
    recipe.write_text(yaml.safe_dump(values))
    found = dytrack("submit", "--address", head.address, "search", recipe)
    assert found.returncode == 0, found.stdout + found.stderr
    front = json.loads(services.content("runs/sought-search/front.json"))
    record = json.loads(services.content("runs/sought-search/search.json"))
    assert [trial["status"] for trial in record["trials"]] == ["finished", "finished"]
    assert any(member["on_front"] for member in front)
    import mlflow

    from dytrack_platform.experiment.runs.tracking import children

    client = mlflow.MlflowClient(services.mlflow)
    above = client.get_run(record["run_id"]).info
    runs = children(client, above.run_id, above.experiment_id)
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]
    assert above.status == "FINISHED"


_WRITER = """
import sys
from pathlib import Path
from dytrack_platform.experiment.runs import tracking
from dytrack_platform.experiment.runs.run_log import logged_run
tracking.connect()
folder = Path(sys.argv[1])
folder.mkdir()
with logged_run(folder.name, folder, None, print) as (_, journal):
    for step in range(1, 501):
        journal.metrics({"train/loss": 1 / step}, step)
"""


def test_four_processes_lose_none_of_their_five_hundred_metrics(services, tmp_path):
    environment = {**services.environment, "MLFLOW_TRACKING_URI": services.mlflow}
    names = [f"writer-{number}" for number in range(4)]
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path / name)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name in names
    ]
    for writer in writers:
        said, _ = writer.communicate(timeout=200)
        assert writer.returncode == 0, said
    for name in names:
        assert logged(services, name) == ("FINISHED", set(range(1, 501)))


def submitted(services, head, recipe, log):
    """Send a training and follow it, in a process of its own; its output goes to a file."""
    with log.open("w") as output:
        return subprocess.Popen(
            [*DYTRACK, "submit", "--address", head.address, "train", str(recipe)],
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            env={**services.environment, "MLFLOW_TRACKING_URI": services.mlflow},
        )


def wait_for_step(services, name, step, log):
    """Wait until the journal of a run has a step."""
    deadline = time.monotonic() + 150
    while step not in reported(services, name):
        assert time.monotonic() < deadline, log.read_text()[-4000:]
        time.sleep(0.3)


def reported(services, name):
    """Return the steps that a run's journal has."""
    found = set()
    for journal in (services.folder / "journals").glob(f"{name}-*/journal.jsonl"):
        lines = [line for line in journal.read_text().splitlines() if line[-1:] == "}"]
        entries = [json.loads(line) for line in lines]
        found |= {e["step"] for e in entries if "train/loss" in e.get("metrics", {})}
    return found


def logged(services, name):
    """Return a run's state in MLflow, and the steps that its curve has."""
    import mlflow

    client = mlflow.MlflowClient(services.mlflow)
    experiment = client.get_experiment_by_name("dytrack").experiment_id
    (run,) = client.search_runs([experiment], f"attributes.run_name = '{name}'")
    curve = client.get_metric_history(run.info.run_id, "train/loss")
    return run.info.status, {point.step for point in curve}


@pytest.fixture
def recipe(services, clips, tmp_path):
    def write(name, epochs):
        values = _recipe(services, name)
        values["train"]["epochs"] = epochs
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


def test_services_that_die_under_a_training_cost_nothing(services, head, recipe, tmp_path):
    """First MLflow's server, then its database."""
    log = tmp_path / "log"
    process = submitted(services, head, recipe("served", 14), log)
    wait_for_step(services, "served", 2, log)
    for service in ("mlflow", "postgres"):
        services.kill(service)
        time.sleep(6)
        services.start(service)
        assert process.poll() is None, log.read_text()[-4000:]
    assert process.wait(200) == 0, log.read_text()[-4000:]
    assert logged(services, "served") == ("FINISHED", set(range(1, 141)))


def test_a_store_that_refuses_for_a_minute_costs_nothing(services, head, recipe, tmp_path):
    """Half of it busy, half of it not there, in a training that reads and writes there."""
    log = tmp_path / "log"
    process = submitted(services, head, recipe("refused", 16), log)
    wait_for_step(services, "refused", 6, log)
    services.gate.be_busy()
    time.sleep(30)
    services.gate.close()
    try:
        time.sleep(30)
        assert process.poll() is None, log.read_text()[-4000:]
        before = reported(services, "refused")
    finally:
        services.gate.open()
    assert process.wait(200) == 0, log.read_text()[-4000:]
    said = " ".join(log.read_text().split())
    assert max(before) < 160, "the training was at work all the time"
    # Which of them it came to first, and whether that one gave an answer in the end, is chance.
    slow = r"(the checkpoint|the request) is not (written|answered) after 10 s: the store is slow"
    assert re.search(slow, said), said[-4000:]
    assert re.search(r"(the checkpoint is written|the request is answered), after \d+ s", said)
    assert "continuing from" not in said, "no worker was started again"
    assert logged(services, "refused") == ("FINISHED", set(range(1, 161)))


def test_another_store_refuses_a_wrong_key_and_takes_clips(services, head, dytrack, made, tmp_path):
    """rclone looks at signatures, which the other store does not."""
    program = rclone()
    if program is None:
        pytest.skip("needs rclone 1.65 or later, which serves S3")
    port, folder = free_port(), tmp_path / "store"
    (folder / BUCKET).mkdir(parents=True)
    keys = f"{KEYS['AWS_ACCESS_KEY_ID']},{KEYS['AWS_SECRET_ACCESS_KEY']}"
    words = ["serve", "s3", "--auth-key", keys, "--addr", f"{services.address}:{port}", str(folder)]
    settings = {
        "AWS_ENDPOINT_URL_S3": f"http://{services.address}:{port}",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
    }
    with (tmp_path / "rclone.log").open("w") as output:
        server = subprocess.Popen([program, *words], stdout=output, stderr=output)
    try:
        until_it_listens((services.address, port), server)
        prepare = ["prepare", "--dataset", "got10k", "--root", made, "--split", "test"]
        prepare += ["--out", f"s3://{BUCKET}/clips", "--search-size", 128, "--frames", 8]
        wrong = dytrack(*prepare, **settings, AWS_SECRET_ACCESS_KEY="another")
        assert wrong.returncode == 2, wrong.stdout + wrong.stderr
        said = " ".join(wrong.stderr.split())
        assert re.fullmatch(
            rf"error: s3://{BUCKET}/clips\S*: the store refuses the keys it was given \(.*\): set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, on every node, to keys that may use this "
            "bucket",
            said,
        ), said
        right = dytrack("submit", "--address", head.address, *prepare, **settings)
        assert right.returncode == 0, right.stdout + right.stderr
        assert list((folder / BUCKET).rglob("part-*.parquet"))
        checked = dytrack("data", "check", "--prepared", f"s3://{BUCKET}/clips", **settings)
        assert checked.returncode == 0, checked.stdout + checked.stderr
    finally:
        server.kill()
        server.wait()


def until_it_listens(address, process):
    deadline = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(address, 1):
            return
        time.sleep(0.1)
    raise AssertionError("it does not listen")


def test_a_lost_head_takes_its_job_along_and_no_checkpoint(services, head, recipe, tmp_path):
    """Whoever follows the job hears it once another head answers; the same command goes on."""
    path = recipe("headless", 12)
    first = submitted(services, head, path, tmp_path / "first")
    wait_for_step(services, "headless", 27, tmp_path / "first")
    head.lose()
    reached = max(reported(services, "headless"))
    head.start()
    assert first.wait(20) == 1, (tmp_path / "first").read_text()[-4000:]
    said = " ".join((tmp_path / "first").read_text().split())
    assert "ended with its cluster: another one answers" in said
    assert "Traceback" not in said
    again = submitted(services, head, path, tmp_path / "second")
    assert again.wait(200) == 0, (tmp_path / "second").read_text()[-4000:]
    found = re.search(r"continuing from step (\d+)", (tmp_path / "second").read_text())
    assert found, (tmp_path / "second").read_text()[-4000:]
    assert 5 <= int(found[1]) <= reached, "from the last whole one"
    assert logged(services, "headless") == ("FINISHED", set(range(1, 121)))
