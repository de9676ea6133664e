"""The Slurm script against stand-ins for srun, ray and the rest: exit codes, and what is left."""

import os
import re
import signal
import subprocess
import time

import pytest

from tests.unit.cluster.manifests import FOLDER, installed

pytestmark = pytest.mark.slow  # each waits for processes

SCRIPT = FOLDER / "slurm.sh"
STUBS = {
    # Runs what stands behind its options, as if on a node.
    "srun": """
        echo "srun $*" >>"$STUBS_LOG"
        while [ "${1#--}" != "$1" ]; do shift; done
        [ -z "${NO_COMMAND-}" ] || [ "$1" != sh ] || exit 1
        exec "$@"
    """,
    "scontrol": "printf 'alpha\\nbeta\\n'",
    "hostname": "echo '10.0.0.7 fe80::1 '",
    "ray": """
        echo "ray $* token=$RAY_AUTH_TOKEN_PATH" >>"$STUBS_LOG"
        case "$*" in *"${BROKEN:-nothing}"*) echo 'port is taken' >&2; exit 1 ;; esac
        echo up >>"$STUBS_UP"
        trap 'echo "ray was told" >>"$STUBS_LOG"; exit 0' TERM
        while :; do sleep 0.05; done
    """,
    "python": 'wc -l <"$STUBS_UP"',
    "dytrack": """
        echo "dytrack $* at $RAY_ADDRESS $(stat -c %a "$RAY_AUTH_TOKEN_PATH")" >>"$STUBS_LOG"
        [ "$1" != slow ] || { trap 'exit 7' TERM; while :; do sleep 0.05; done; }
        exit "${CODE:-0}"
    """,
}


@pytest.fixture
def job(tmp_path):
    """Return a function that starts the script as a job of two nodes."""
    stubs = tmp_path / "bin"
    stubs.mkdir()
    for name, body in STUBS.items():
        path = stubs / name
        path.write_text(f"#!/usr/bin/env bash\n{body}\n")
        path.chmod(0o755)
    (tmp_path / "up").touch()
    environment = {
        "PATH": f"{stubs}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "SLURM_JOB_ID": "1234567",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_CPUS_PER_TASK": "4",
        "STUBS_LOG": str(tmp_path / "log"),
        "STUBS_UP": str(tmp_path / "up"),
        "DYTRACK_SLURM_WAIT_S": "4",
    }

    def start(*words, **more):
        return subprocess.Popen(
            ["bash", SCRIPT, *words],
            env={**environment, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    return start


def end(process):
    said, _ = process.communicate(timeout=60)
    return process.returncode, said


def log(tmp_path):
    return (tmp_path / "log").read_text()


def test_a_command_runs_on_the_first_node_and_nothing_is_left(job, tmp_path):
    code, said = end(job("train", "r.yaml", "--set", "name=a b"))
    assert code == 0, said
    lines = log(tmp_path)
    port = 20000 + 1234567 % 600 * 20
    assert f"dytrack train r.yaml --set name=a b at 10.0.0.7:{port} 600" in lines
    (head,) = re.findall(r"^ray start --head .*", lines, re.MULTILINE)
    (worker,) = re.findall(r"^ray start --address=.*", lines, re.MULTILINE)
    for words in (head, worker):
        assert "--temp-dir=/tmp/dyt-1234567 " in words
        assert f"token={tmp_path}/.dytrack/slurm/1234567/token" in words
    assert "--dashboard-host=127.0.0.1" in head
    assert "--exclude=alpha ray start" in lines
    assert lines.count("ray was told") == 2
    assert "ray stop" not in lines, "it would end every Ray of this user"
    assert "rm -rf /tmp/dyt-1234567" in lines
    assert not (tmp_path / ".dytrack" / "slurm" / "1234567").exists(), "the token is removed"


def test_no_two_ports_of_a_job_are_the_same(job, tmp_path):
    end(job("train", "r.yaml"))
    (head,) = re.findall(r"^ray start --head .*", log(tmp_path), re.MULTILINE)
    ports = [int(port) for port in re.findall(r"-port=(\d+)", head)]
    assert len(ports) == 9
    assert len(set(ports)) == 9
    assert all(20000 <= port < 32768 for port in ports)


def test_the_exit_code_is_the_commands_own(job):
    code, said = end(job("train", "r.yaml", CODE="3"))
    assert code == 3
    assert "the command ended with 3" in said


@pytest.mark.parametrize("which", ["--head", "--address"])
def test_a_ray_that_does_not_start_is_a_failure(job, tmp_path, which):
    code, said = end(job("train", "r.yaml", BROKEN=which))
    assert code == 70, said
    assert "port is taken" in said
    assert "ray start failed on a node; its message stands above" in said
    assert "dytrack train" not in log(tmp_path)


def test_nodes_that_never_come_are_a_failure(job, tmp_path):
    (tmp_path / "bin" / "python").write_text("#!/usr/bin/env bash\necho 1\n")
    code, said = end(job("train", "r.yaml"))
    assert code == 70
    assert "1 of 2 nodes came up within 4 s" in said


def test_a_command_that_srun_never_started_is_a_failure(job):
    code, said = end(job("train", "r.yaml", NO_COMMAND="1"))
    assert code == 70
    assert "the command never started (srun ended with 1)" in said


def test_slurms_word_reaches_the_command_and_its_code_comes_back(job, tmp_path):
    process = job("slow")
    deadline = time.monotonic() + 30
    while not (tmp_path / "log").exists() or "dytrack slow" not in log(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.2)  # its trap is set in the next line
    process.send_signal(signal.SIGTERM)  # to the script alone, as --signal=B: does
    code, said = end(process)
    assert code == 7, said
    assert log(tmp_path).count("ray was told") == 2


def test_without_a_command_or_outside_of_slurm_nothing_starts(job):
    assert end(job())[0] == 2
    done = subprocess.run(
        ["bash", SCRIPT, "train"],
        env={"PATH": os.environ["PATH"], "HOME": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "start this script with sbatch" in done.stderr


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.sh")), ids=lambda path: path.name)
def test_shell_is_clean(path):
    shellcheck = installed("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed (the extra test has it)")
    done = subprocess.run([shellcheck, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
