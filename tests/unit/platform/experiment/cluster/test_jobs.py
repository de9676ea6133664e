"""Jobs over a Jobs API on loopback; tests/cluster sends real ones."""

import asyncio
import itertools
import socket
import time

import pytest
from aiohttp import web

from dytrack_platform.errors import AccessError, ClusterError, ConfigurationError
from dytrack_platform.experiment.cluster import client, job_log, jobs, session


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Wait less, and let one small package travel."""
    monkeypatch.setattr(jobs, "_ASK_S", 0.05)
    monkeypatch.setattr(jobs, "_REST_S", 0.2)
    monkeypatch.setattr(jobs.time, "sleep", lambda seconds, sleep=time.sleep: sleep(0.05))
    package = tmp_path / "package"
    package.mkdir()
    (package / "a.py").write_text("x = 1\n")
    monkeypatch.setattr(session, "packages", lambda: [str(package)])


def fail(status, text):
    async def fault(_):
        return web.Response(status=status, text=text)

    return fault


async def silent(_):
    await asyncio.sleep(600)


def request(dashboard, *command, **more):
    return jobs.JobRequest(command=command, address=dashboard.address, **more)


def submit(dashboard, *command, **more):
    return jobs.submit(request(dashboard, *command, **more), lambda text: None)


def followed(dashboard, name="a"):
    said = []
    code = jobs.follow(jobs.Job(id=name, address=dashboard.address), said.append)
    return code, "".join(said)


@pytest.fixture
def recipe(tmp_path):
    """Write a recipe; returns its path."""

    def write(name="one", text="", file="r.yaml"):
        path = tmp_path / file
        path.write_text(f"name: {name}\ntrain: {{storage: /nfs/runs}}\n{text}")
        return path

    return write


SERVER = {"MLFLOW_TRACKING_URI": "http://mlflow:5000"}


def train(dashboard, path, *words, **more):
    changes = tuple(w for before, w in itertools.pairwise(words) if before == "--set")
    command = ("train", str(path), *words)
    given = {"recipe": path, "changes": changes, "environment": SERVER, **more}
    return submit(dashboard, *command, **given)


# Logs


def test_what_a_cut_stream_has_said_is_not_said_again(dashboard):
    dashboard.put("a")
    end = dashboard.jobs["a"].update
    done = {"status": "SUCCEEDED", "driver_exit_code": 3}
    dashboard.streams = [
        ["one\n", "two\n"],
        ["one\ntw"],
        [],
        ["one\ntwo\nthr", lambda: end(done), "ee\n"],
    ]
    assert followed(dashboard) == (3, "one\ntwo\nthree\n")


def test_a_log_that_died_in_silence_does_not_hide_the_end(dashboard):
    dashboard.put("a")
    dashboard.log = "one\ntwo\nthree\n"
    done = {"status": "SUCCEEDED", "driver_exit_code": 0}
    dashboard.streams = [["one\n", lambda: dashboard.jobs["a"].update(done), None]]
    began = time.monotonic()
    assert followed(dashboard) == (0, dashboard.log)
    assert time.monotonic() - began < 5


def test_a_silent_log_is_opened_anew(dashboard, monkeypatch):
    monkeypatch.setattr(jobs, "_SILENCE_S", 0.3)
    dashboard.put("a")
    done = {"status": "SUCCEEDED", "driver_exit_code": 0}
    end = dashboard.jobs["a"].update
    dashboard.streams = [["one\n", None], ["one\n", lambda: end(done), "two\n"]]
    assert followed(dashboard) == (0, "one\ntwo\n")


def test_nothing_is_said_once_a_log_is_left(dashboard):
    said = []
    dashboard.streams = [["one\n", None]]
    dashboard.put("a")
    log = job_log.JobLog(client.connect(dashboard.address), "a", said.append)
    with log.streamed() as stream:
        while not said:
            time.sleep(0.01)
        assert not stream.wait(0)
    assert stream.wait(0)
    assert said == ["one\n"]


def test_a_head_that_is_lost_or_another_is_said(dashboard, monkeypatch):
    monkeypatch.setattr(jobs, "_PATIENCE_S", 0.2)
    dashboard.put("a")
    dashboard.streams = [[], [None], [None]]
    gone = {"GET /api/jobs/a": fail(404, "Job a does not exist")}
    dashboard.streams[0] = [lambda: dashboard.faults.update(gone)]
    with pytest.raises(ClusterError, match="job a ended with its cluster: another one answers"):
        followed(dashboard)
    dashboard.faults = {"GET /api/jobs/a": fail(503, "")}
    with pytest.raises(ClusterError, match=r"has not answered for 0\.2 s; the job may go on"):
        followed(dashboard)


# What is not there, or not well


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:8265", "ray://127.0.0.1:10001", "http://[::1", "http://h:99999", "auto", "http://"],
)
def test_an_address_that_is_none_is_refused_at_once(address):
    with pytest.raises(AccessError, match=r"--address: expected .* such as http://HEAD:8265, got"):
        jobs.listed(address)


@pytest.mark.parametrize(
    ("address", "place"), [("https://host", ("host", 443)), ("http://[::1]/x", ("[::1]", 80))]
)
def test_an_address_without_a_port_has_its_schemes(address, place):
    assert client._place(address) == place


def test_the_named_address_is_asked_whatever_ray_would_take(dashboard, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.255.255.1:6379")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://10.255.255.1:8265")
    dashboard.put("a")
    assert [job.submission_id for job in jobs.listed(dashboard.address)] == ["a"]


def test_another_version_of_ray_is_refused(dashboard):
    dashboard.version = "2.40.0"
    with pytest.raises(AccessError, match=r"has Ray 2\.40\.0 and this machine Ray 2\.\d+"):
        submit(dashboard, "describe", "test")
    assert dashboard.sent == []


@pytest.mark.parametrize(
    "ask",
    [
        lambda at: jobs.submit(
            jobs.JobRequest(command=("describe", "test"), address=at), lambda text: None
        ),
        jobs.listed,
        lambda at: jobs.log(jobs.Job(id="a", address=at)),
        lambda at: jobs.stop(jobs.Job(id="a", address=at), lambda text: None),
        lambda at: jobs.follow(jobs.Job(id="a", address=at), lambda text: None),
    ],
)
@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (silent, r"takes connections and has not answered for 0\.3 s"),
        (fail(200, "<html>"), "is not Ray's dashboard"),
        (fail(200, "{}"), r"is not Ray's dashboard \(it lacks 'ray_version'\)"),
        (fail(200, "[]"), "is not Ray's dashboard"),
        (fail(404, "nothing here"), r"is not Ray's dashboard \(HTTP status 404\)"),
        (fail(401, "Unauthorized"), "asks for its token"),
    ],
)
def test_a_dashboard_that_is_silent_or_none_is_said_in_a_sentence(
    dashboard, monkeypatch, ask, fault, sentence
):
    if fault is silent:
        monkeypatch.setattr(client, "_ANSWER_S", 0.3)
    dashboard.faults = {"GET /api/version": fault}
    with pytest.raises(AccessError, match=sentence) as refused:
        ask(dashboard.address)
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == 2


def test_an_error_of_the_server_is_one_line(dashboard):
    dashboard.put("a")
    traced = "Traceback (most recent call last):\n  File\nOSError: no space left\n"
    dashboard.faults = {f"{m} /api/jobs/a": fail(500, traced) for m in ("GET", "POST")}
    at = jobs.Job(id="a", address=dashboard.address)
    for ask in (jobs.log, lambda job: jobs.stop(job, lambda text: None)):
        with pytest.raises(AccessError, match=r"what it was asked: OSError: no space left$"):
            ask(at)
    dashboard.faults = {"POST /api/jobs/": fail(500, "")}
    with pytest.raises(AccessError, match="does not do what it was asked"):
        submit(dashboard, "describe", "test")
    with pytest.raises(AccessError, match="knows no such job; dytrack jobs list --address http"):
        jobs.log(jobs.Job(id="b", address=dashboard.address))


def test_the_whole_command_ends_with_2_at_a_dashboard_that_is_silent(
    dashboard, monkeypatch, dytrack
):
    monkeypatch.setattr(client, "_ANSWER_S", 0.3)
    dashboard.faults = {"GET /api/version": silent}
    began = time.monotonic()
    done = dytrack("submit", "--address", dashboard.address, "describe", "test")
    assert done.returncode == 2
    assert time.monotonic() - began < 20
    assert "takes connections and has not answered" in " ".join(done.stderr.split())


# Names


def test_the_id_of_a_training_follows_from_its_runs_name(dashboard, recipe):
    path = recipe("one")
    assert train(dashboard, path).id == "train-one"
    assert train(dashboard, path) == jobs.Job(
        id="train-one", address=dashboard.address, attached=True
    )
    assert train(dashboard, path, "--set", "name=two").id == "train-two"
    assert train(dashboard, path, "--set", "name=x", name="mine").id == "mine"
    dashboard.jobs["train-one"]["status"] = "FAILED"
    assert train(dashboard, path).id == "train-one.2"
    assert len(dashboard.sent) == 4


@pytest.mark.parametrize("number", ["", ".2"])
def test_another_recipe_of_a_name_in_use_is_refused(dashboard, recipe, number):
    train(dashboard, recipe("one"))
    if number:
        dashboard.jobs["train-one"]["status"] = "SUCCEEDED"
        train(dashboard, recipe("one"))
    with pytest.raises(
        ConfigurationError,
        match=rf"^name: a job train-one{number} runs the same command with other content of its "
        r"files; .*--set name=NAME.* jobs stop train-one",
    ):
        train(dashboard, recipe("one", "seed: 7\n"))
    with pytest.raises(ConfigurationError, match=rf"job train-one{number} runs another command \("):
        train(dashboard, recipe("one"), "--set", "seed=7")


def test_a_name_that_ends_like_a_number_is_another_name(dashboard):
    submit(dashboard, "describe", "test", name="v1.5")
    assert submit(dashboard, "describe", "tiny", name="v1").id == "v1"


def test_who_comes_second_by_a_moment_is_attached(dashboard):
    async def late(_):
        """Tell of the jobs that there were, while another one arrives."""
        del dashboard.faults["GET /api/jobs/"]
        others = list(dashboard.jobs.values())
        asked = jobs.JobRequest(command=("describe", "test"), address=dashboard.address)
        await asyncio.to_thread(jobs.submit, asked, lambda text: None)
        return web.json_response(others)

    dashboard.faults["GET /api/jobs/"] = late
    found = submit(dashboard, "describe", "test")
    assert found.attached
    assert [sent["submission_id"] for sent in dashboard.sent] == [found.id] * 2
    assert len(dashboard.jobs) == 1


# What is sent


def test_what_travels_is_said_once_and_names_of_packages_are_not(dashboard, capfd):
    said = []
    jobs.submit(request(dashboard, "describe", "test"), said.append)
    jobs.submit(request(dashboard, "describe", "test"), said.append)
    assert said == ["1 packages travel, 0.0 MB in all\n"]
    assert "_ray_pkg" not in "".join(capfd.readouterr())


def test_what_the_command_needs_is_asked_of_ray(dashboard):
    submit(dashboard, "describe", "test", cpus=2, gpus=0.5, resources={"big": 1})
    (sent,) = dashboard.sent
    assert (sent["entrypoint_num_cpus"], sent["entrypoint_num_gpus"]) == (2, 0.5)
    assert sent["entrypoint_resources"] == {"big": 1}


def test_settings_of_this_shell_travel(dashboard, monkeypatch):
    for name in ("DYTRACK_JOURNALS", "MLFLOW_S3_ENDPOINT_URL"):
        monkeypatch.setenv(name, "http://x")
    submit(dashboard, "describe", "test", secrets=("A_KEY",))
    variables = dashboard.sent[0]["runtime_env"]["env_vars"]
    assert variables.items() >= {"DYTRACK_JOURNALS": "http://x", "DYTRACK_SECRETS": "A_KEY"}.items()
    assert variables["MLFLOW_S3_ENDPOINT_URL"] == "http://x"


@pytest.mark.parametrize(
    "word",
    ["s3://KEY:hush@bucket/data", "--root=s3://hush@bucket", "s3://bucket/x?secret_key=hush"],
)
def test_a_key_in_an_address_is_refused_and_not_told(dashboard, word):
    with pytest.raises(ConfigurationError, match="shows its command to everybody; set AWS_") as no:
        submit(dashboard, "prepare", word)
    assert "hush" not in str(no.value)
    with pytest.raises(ConfigurationError, match="give --secret") as no:
        submit(dashboard, "prepare", environment={"PLACE": word})
    assert "hush" not in str(no.value)
    assert dashboard.sent == []


def test_a_job_may_take_as_long_to_end_as_its_recipe_grants(dashboard, recipe):
    train(dashboard, recipe("one"))
    train(dashboard, recipe("two"), "--set", "train.grace_s=100.5")
    waits = [s["runtime_env"]["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"] for s in dashboard.sent]
    assert waits == ["45", "121"]
    assert [s["metadata"]["stop_wait_s"] for s in dashboard.sent] == waits


def test_a_job_that_ends_late_is_waited_for_as_long(dashboard, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(jobs.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(jobs.time, "sleep", lambda _: clock.__setitem__(0, clock[0] + 10))
    dashboard.put("a", metadata={"stop_wait_s": "121"})
    dashboard.faults["POST /api/jobs/a/stop"] = fail(200, '{"stopped": true}')
    with pytest.raises(ClusterError, match=r"^job a does not end; look at http"):
        jobs.stop(jobs.Job(id="a", address=dashboard.address), lambda text: None)
    assert clock[0] == 150


# What would be lost


@pytest.mark.parametrize(
    "store", ["mlruns", "/nfs/mlruns", "file:///nfs/mlruns", "sqlite:///m.db", "", "sqlite://"]
)
def test_a_store_that_is_no_server_is_refused(dashboard, store):
    with pytest.raises(
        ConfigurationError, match=r"^MLFLOW_TRACKING_URI: a job's records go to a server"
    ):
        submit(dashboard, "evaluate", environment={"MLFLOW_TRACKING_URI": store})
    submit(dashboard, "evaluate", "--no-mlflow", records=False)


def test_a_file_is_a_store_only_where_all_nodes_are_this_machine(dashboard):
    store = {"MLFLOW_TRACKING_URI": "sqlite:////tmp/m.db"}
    with pytest.raises(ConfigurationError, match="is a file of this machine, and nodes of the"):
        submit(dashboard, "evaluate", environment=store)
    dashboard.hosts = [socket.gethostname()]
    assert submit(dashboard, "evaluate", environment=store).id.startswith("evaluate-")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("data: {train: [{path: clips}]}\n", r"data\.train\.0\.path"),
        ("data: {resident: [{dataset: got10k, root: GOT}]}\n", r"data\.root"),
        ("distillation: {teacher: old}\n", r"distillation\.teacher"),
    ],
)
def test_places_of_this_machine_in_a_recipe_are_refused(dashboard, recipe, text, key):
    with pytest.raises(ConfigurationError, match=rf"^{key}: \w+ is a folder of this machine"):
        train(dashboard, recipe("one", text))


def test_a_relative_root_is_refused(dashboard):
    with pytest.raises(ConfigurationError, match=r"^--root: GOT is a folder of this machine"):
        submit(dashboard, "prepare", "--root", "GOT", root="GOT")
