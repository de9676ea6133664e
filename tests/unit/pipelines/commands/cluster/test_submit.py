"""Jobs as commands, with the cluster stood for; tests/cluster sends real ones."""

import builtins
import sys
from types import SimpleNamespace

import pytest

from dytrack_platform.experiment.cluster import jobs

AT = "http://cluster:8265"


@pytest.fixture
def cluster(monkeypatch):
    """Keep what is asked of a cluster; ``ends`` are what following a job comes to, in turn."""
    seen = SimpleNamespace(requests=[], stopped=[], ends=[0])

    def submit(request, say):
        seen.requests.append(request)
        say("12 files travel\n")
        return jobs.Job(id="train-1", address=request.address, attached=len(seen.requests) > 1)

    def follow(job, say):
        end = seen.ends.pop(0)
        if end is KeyboardInterrupt:
            raise end
        return end

    monkeypatch.setattr(jobs, "submit", submit)
    monkeypatch.setattr(jobs, "follow", follow)
    monkeypatch.setattr(jobs, "stop", lambda job, say: seen.stopped.append(job.id))
    return seen


def test_the_command_and_its_surroundings_are_sent_and_its_exit_code_is_ours(dytrack, cluster):
    cluster.ends = [3]
    words = ["--address", AT, "--env", "A=b=c", "--secret", "TOKEN", "--gpus", "0.5"]
    done = dytrack("submit", *words, "--resources", "big=2", "train", "tiny", "--set", "seed=1")
    assert done.returncode == 3
    (request,) = cluster.requests
    assert request.command == ("train", "tiny", "--set", "seed=1")
    assert request.environment == {"A": "b=c"}
    assert (request.secrets, request.gpus, request.resources) == (("TOKEN",), 0.5, {"big": 2.0})
    assert f"job train-1: {AT}/#/jobs/train-1" in done.stdout
    assert "12 files travel" in done.stdout


def test_what_the_command_says_is_read_wherever_its_options_stand(dytrack, cluster, tmp_path):
    cluster.ends = [0] * 5
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: one\n")
    words = ["--set", "name=two", str(recipe), "--set=seed=1", "--debug"]
    dytrack("submit", "train", *words)
    dytrack("submit", "train", "tiny", "--local")
    dytrack("submit", "train", "/nfs/r.yaml", "--dry-run")
    dytrack("submit", "evaluate", "--no-mlflow", "--root", "GOT", "--no-such")
    dytrack("submit", "search", "report", "RUN")
    train, shipped, elsewhere, evaluate, report = cluster.requests
    assert (train.recipe, train.changes) == (recipe, ("name=two", "seed=1"))
    assert shipped.recipe.name == "tiny.yaml"
    assert [one.records for one in cluster.requests] == [True, False, False, False, True]
    assert (elsewhere.recipe, report.recipe) == (None, None)
    assert evaluate.root == "GOT"
    done = dytrack("submit", "train", "tinny")
    assert done.returncode == 2
    assert "tinny: no such recipe; give a YAML file, or a name; did you mean tiny?" in done.stderr


def test_a_job_that_runs_already_is_said_and_one_may_be_left_at_once(dytrack, cluster):
    dytrack("submit", "--address", AT, "train", "tiny")
    done = dytrack("submit", "--address", AT, "--detach", "train", "tiny")
    assert done.returncode == 0
    assert "job train-1 runs already" in done.stdout
    assert f"dytrack jobs attach train-1 --address {AT}" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--env", "A"], "expected NAME=VALUE, got 'A'"),
        (["--resources", "=2"], "expected NAME=VALUE, got '=2'"),
        (["--resources", "big=x"], "expected a number, got 'x'"),
    ],
)
def test_what_is_no_pair_is_refused_before_anything_is_sent(dytrack, cluster, words, said):
    done = dytrack("submit", *words, "train", "tiny")
    assert done.returncode == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())
    assert cluster.requests == []


@pytest.mark.parametrize(
    ("answers", "code", "stopped"),
    [
        (["s"], 130, ["train-1"]),
        (["Leave it"], 130, []),
        (["w"], 0, []),
        ([EOFError], 130, []),
    ],
)
def test_ctrl_c_asks_what_becomes_of_the_job(dytrack, cluster, monkeypatch, answers, code, stopped):
    def answer(_):
        said = answers.pop(0)
        if isinstance(said, str):
            return said
        raise said

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(builtins, "input", answer)
    cluster.ends = [KeyboardInterrupt, 0]
    done = dytrack("jobs", "attach", "train-1", "--address", AT)
    assert done.returncode == code
    assert cluster.stopped == stopped
    left = f"goes on: dytrack jobs attach train-1 --address {AT} follows"
    assert (left in done.stdout) == (code == 130 and not stopped)


def test_where_nobody_can_answer_the_job_goes_on(dytrack, cluster, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: False))
    cluster.ends = [KeyboardInterrupt]
    assert dytrack("submit", "train", "tiny").returncode == 130
    assert cluster.stopped == []


def test_logs_and_stop(dytrack, cluster, monkeypatch):
    monkeypatch.setattr(jobs, "log", lambda job: f"log of {job.id} at {job.address}\n")
    assert dytrack("jobs", "logs", "x", "--address", AT).stdout == f"log of x at {AT}\n"
    done = dytrack("jobs", "stop", "x", "--address", AT)
    assert "job x has ended" in done.stdout
    assert cluster.stopped == ["x"]
