"""Every planted fault is found, alone, with its cure."""

import copy
import json

import pytest

from dytrack_platform.experiment.doctor import examination, survey
from dytrack_platform.experiment.doctor.examination import Question, judge_mlflow, judge_nodes

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
    "gpu": {"there": False, "torch": False, "build": "CPU"},
    "storage": "",
    "unreadable": [],
}
NODE = {**HERE, "host": "node", "versions": {**HERE["versions"], "dytrack": "missing"}}
QUESTION = Question(ray_address="node:6379", storage="/nfs/runs", data=("/nfs/clips",))


def _wrong(checks):
    assert all(check.cure for check in checks if not check.ok)
    return [check.check for check in checks if not check.ok]


def test_nothing_is_wrong_where_nothing_was_planted():
    checks = judge_nodes([HERE, NODE], QUESTION)
    assert _wrong(checks) == []
    assert "bf16 (AMX)" in next(c.detail for c in checks if c.check == "processor")


FAULTS = {
    "versions": ({"versions": {**HERE["versions"], "ray": "2.50.0"}}, "ray is 2.60.0 on laptop"),
    "two-rays": ({"rays": 2}, "2 Ray heads run here"),
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
    checks = judge_nodes([HERE, {**copy.deepcopy(NODE), **planted}], QUESTION)
    assert _wrong(checks) == [name]
    found = next(check for check in checks if check.check == name)
    assert "node" in found.detail
    assert detail in found.detail


def test_a_store_that_wants_a_length_gets_its_cure():
    planted = {**NODE, "storage": "AWS Error UNKNOWN (HTTP status 411)"}
    (found,) = [c for c in judge_nodes([HERE, planted], QUESTION) if not c.ok]
    assert "AWS_REQUEST_CHECKSUM_CALCULATION=when_required" in found.cure


def test_gpus_that_nobody_has_are_said():
    checks = judge_nodes([HERE], Question(gpus=2))
    assert _wrong(checks) == ["gpu"]


def test_a_server_that_asks_who_is_there_is_fine(server):
    uri, _ = server
    assert _wrong(judge_mlflow(uri, remote=True)) == []


def test_an_open_server_is_found_unless_it_listens_to_this_machine_only(server, monkeypatch):
    uri, kind = server
    kind.code = 200
    assert _wrong(judge_mlflow(uri, remote=True)) == []
    monkeypatch.setattr(examination.store, "is_loopback", lambda _: False)
    assert _wrong(judge_mlflow(uri, remote=True)) == ["mlflow-open"]


def test_an_old_server_is_found(server):
    uri, kind = server
    kind.version = "3.4.0"
    (found,) = [c for c in judge_mlflow(uri, remote=True) if not c.ok]
    assert found.check == "mlflow-server"
    assert "3.4.0; 3.15 closes known holes" in found.detail


def test_a_store_that_is_gone_or_of_one_machine_is_found(tmp_path):
    assert _wrong(judge_mlflow("http://127.0.0.1:1", remote=True)) == ["mlflow"]
    file = f"sqlite:///{tmp_path}/m.db"
    assert _wrong(judge_mlflow(file, remote=False)) == []
    (found,) = judge_mlflow(file, remote=True)
    assert not found.ok
    assert "a file of one machine" in found.detail


def test_a_token_that_is_absent_or_wrong_is_found(server, monkeypatch, tmp_path):
    uri, kind = server
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    found = examination.judge_token(uri)
    assert not found.ok
    assert "which has no token" in found.detail
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")
    assert "which has a token" in examination.judge_token(uri).detail
    kind.code = 200
    assert examination.judge_token(uri).ok
    assert not examination.judge_token("http://127.0.0.1:1").ok


def test_storage_is_written_and_read(tmp_path):
    assert survey.try_storage(str(tmp_path / "new"), None) == ""
    assert list((tmp_path / "new").iterdir()) == []
    assert "not shared" in survey.try_storage(str(tmp_path), str(tmp_path / "gone.json"))
    (tmp_path / "file").write_text("")
    assert survey.try_storage(str(tmp_path / "file"), None)


def test_the_command_prints_json_and_ends_with_1_where_something_is_wrong(
    dytrack_command, tmp_path, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/m.db")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(survey, "rays", lambda: 0)
    code, said = dytrack_command("doctor", "--json", "--storage", str(tmp_path))
    checks = json.loads(said)
    assert [set(check) for check in checks] == [{"check", "ok", "detail", "cure"}] * len(checks)
    assert code == int(not all(check["ok"] for check in checks))
    code, said = dytrack_command("doctor", "--json", "--data", "/no/such")
    assert code == 1
    assert "data" in [check["check"] for check in json.loads(said) if not check["ok"]]
    code, said = dytrack_command("doctor", "--gpus", "64")
    assert code == 1


@pytest.fixture
def dytrack_command(monkeypatch, capsys):
    import sys

    from dytrack_pipelines import cli

    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["dytrack", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), capsys.readouterr().out

    return run
