"""Every planted fault is found, alone, with its cure."""

import copy
import json
import socket
import time
from types import SimpleNamespace

import pytest

from dytrack_platform.experiment.doctor import survey
from dytrack_platform.experiment.doctor.check import Question
from dytrack_platform.experiment.doctor.examination import judge_nodes

GIB = 2**30
HERE = {
    "host": "laptop",
    "versions": {"python": "3.11.7", "dytrack": "0.1.0", "ray": "2.60.0", "torch": "2.13.0"},
    "loopback": None,
    "shm_bytes": 8 * GIB,
    "disk_bytes": 80 * GIB,
    "opencv": ["opencv-python-headless"],
    "rays": 1,
    "cpu": {"name": "a processor", "cores": 2, "fast": ["bf16 (AMX)"]},
    "gpu": {"there": False, "torch": False, "build": "CPU", "count": 0},
    "storage": "",
    "unreadable": [],
}
NODE = {**HERE, "host": "node", "versions": {**HERE["versions"], "dytrack": "missing"}}
QUESTION = Question(ray_address="node:6379", storage="/nfs/runs", data=("/nfs/clips",))


def _wrong(checks):
    assert all(check.cure for check in checks if not check.ok)
    return [check.check for check in checks if not check.ok]


def test_nothing_is_wrong_where_nothing_was_planted():
    checks = judge_nodes(HERE, [NODE, NODE], QUESTION)
    assert _wrong(checks) == []
    assert "bf16 (AMX)" in next(c.detail for c in checks if c.check == "processor")


FAULTS = {
    "versions": ({"versions": {**HERE["versions"], "ray": "2.50.0"}}, "ray is 2.60.0 on laptop"),
    "two-rays": ({"rays": 2}, "2 Rays run here"),
    "shared-memory": ({"shm_bytes": 64 * 2**20}, "/dev/shm has 0.1 GiB free"),
    "disk": ({"disk_bytes": GIB}, "has 1.0 GiB free"),
    "host-name": ({"loopback": "127.0.1.1"}, "its name leads to 127.0.1.1"),
    "opencv": (
        {"opencv": ["opencv-python-headless", "opencv-contrib-python"]},
        "opencv-python-headless and opencv-contrib-python",
    ),
    "gpu": ({"gpu": {"there": True, "torch": False, "build": "CPU"}}, "its torch (CPU) cannot use"),
    "storage": ({"storage": "a file that another node wrote is not there: it is not shared"}, ""),
    "data": ({"unreadable": ["/nfs/clips"]}, "/nfs/clips is not readable"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_a_node_is_found(name):
    planted, detail = FAULTS[name]
    checks = judge_nodes(HERE, [NODE, {**copy.deepcopy(NODE), **planted}], QUESTION)
    assert _wrong(checks) == [name]
    found = next(check for check in checks if check.check == name)
    assert "node" in found.detail
    assert detail in found.detail


def test_a_store_that_wants_a_length_gets_its_cure():
    # As pyarrow says it, and never for the name of the file alone.
    refusal = (
        "s3://b/.doctor-0411.json: cannot be written: When completing multiple part upload for key "
        "'x' in bucket 'b': AWS Error UNKNOWN (HTTP status {}) during PutObject operation"
    )
    for status, cured in ((411, True), (403, False)):
        planted = {**NODE, "storage": refusal.format(status)}
        (found,) = [c for c in judge_nodes(HERE, [planted], QUESTION) if not c.ok]
        assert ("AWS_REQUEST_CHECKSUM_CALCULATION=when_required" in found.cure) is cured


def test_a_name_of_the_machine_that_only_sends_work_is_its_own_affair():
    laptop = {**HERE, "loopback": "127.0.1.1"}
    assert _wrong(judge_nodes(laptop, [NODE, NODE], QUESTION)) == []
    assert _wrong(judge_nodes(laptop, [laptop], QUESTION)) == [], "one host reaches itself"


def test_gpus_are_counted_where_the_work_is_done():
    one = {"there": True, "torch": True, "build": "12.8", "count": 1}
    here, node = {**HERE, "gpu": {**one, "count": 8}}, {**NODE, "gpu": one}
    assert _wrong(judge_nodes(here, [], Question(gpus=8))) == []
    assert _wrong(judge_nodes(here, [node, node], Question(gpus=2))) == []
    (found,) = [c for c in judge_nodes(here, [node, node], Question(gpus=8)) if not c.ok]
    assert found.check == "gpu"
    assert found.detail == "8 are asked for, and there are 2: 1 on node, 1 on node"
    assert _wrong(judge_nodes(HERE, [], Question(gpus=2))) == ["gpu"]
    assert _wrong(judge_nodes(HERE, [NODE], Question(gpus=2), scaled=True)) == []


def test_an_interface_that_gloo_is_told_is_a_cure(monkeypatch):
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    monkeypatch.setattr(survey.socket, "gethostbyname", lambda _: "127.0.1.1")
    assert survey.resolves_to_loopback() == "127.0.1.1"
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth0")
    assert survey.resolves_to_loopback() is None


def test_heads_and_nodes_are_counted(monkeypatch):
    import psutil

    def running(*names):
        some = [SimpleNamespace(info={"name": name}) for name in names]
        monkeypatch.setattr(psutil, "process_iter", lambda _: some)
        return survey.rays()

    assert running("python", "bash") == 0
    assert running("gcs_server", "raylet") == 1
    assert running("raylet", "raylet") == 2
    assert running("gcs_server", "gcs_server", "raylet") == 2


def test_storage_is_written_and_read(tmp_path):
    assert survey.try_storage(str(tmp_path / "new"), None) == ""
    assert list((tmp_path / "new").iterdir()) == []
    assert "not shared" in survey.try_storage(str(tmp_path), str(tmp_path / "gone.json"))
    (tmp_path / "file").write_text("")
    assert survey.try_storage(str(tmp_path / "file"), None)


@pytest.fixture
def sound(monkeypatch, tmp_path):
    """A machine with nothing wrong, whatever this one has."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/m.db")
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(survey, "rays", lambda: 0)
    monkeypatch.setattr(survey, "_free", lambda _: 80 * GIB)
    monkeypatch.setattr(survey, "gpu", lambda: HERE["gpu"])
    whole = survey._version
    absent = set(survey._OPENCV[1:])
    monkeypatch.setattr(survey, "_version", lambda n: None if n in absent else whole(n))


def test_the_command_ends_with_0_where_all_holds_and_with_1_where_something_is_wrong(
    dytrack, sound, tmp_path
):
    done = dytrack("doctor", "--json", "--storage", str(tmp_path), "--data", str(tmp_path))
    checks = json.loads(done.stdout)
    assert [check for check in checks if not check["ok"]] == []
    assert done.returncode == 0
    assert [set(check) for check in checks] == [{"check", "ok", "detail", "cure"}] * len(checks)
    done = dytrack("doctor", "--json", "--data", "/no/such")
    assert done.returncode == 1
    assert [c["check"] for c in json.loads(done.stdout) if not c["ok"]] == ["data"]
    done = dytrack("doctor", "--gpus", "64")
    assert done.returncode == 1
    assert "WRONG gpu: 64 are asked for, and there are 0" in done.stdout


def test_the_dashboard_is_taken_from_the_environment(dytrack, sound, server, monkeypatch):
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", server[0])
    done = dytrack("doctor")
    assert done.returncode == 1
    assert f"WRONG token: {server[0]} refuses this machine" in done.stdout


@pytest.mark.slow
def test_a_cluster_and_services_that_say_nothing_are_found_within_twenty_seconds(
    dytrack, sound, monkeypatch
):
    """With the waits as they are: what is wrong with each does not add up."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        place = f"127.0.0.1:{deaf.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", place)
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", f"http://{place}")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{place}")
        began = time.monotonic()
        done = dytrack("doctor", "--json")
    assert time.monotonic() - began < 20
    wrong = {c["check"]: c for c in json.loads(done.stdout) if not c["ok"]}
    assert set(wrong) == {"ray", "token", "mlflow"}
    assert "takes connections and says nothing" in wrong["ray"]["detail"]
    assert "start that Ray head again" in wrong["ray"]["cure"]
