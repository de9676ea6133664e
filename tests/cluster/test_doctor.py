"""The doctor finds each fault that was planted, within twenty seconds, and says what to do.

Faults are planted for real, on hosts of their own (see :mod:`tests.cluster.ward`), and looked for
with ``dytrack doctor --json``.
"""

import re
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from tests import load
from tests.cluster import hosts
from tests.cluster.services import BUCKET, KEYS, free_port, rclone
from tests.cluster.ward import HAS_GPU, HEAD, LAPTOP, READER, Ward, can, install

pytestmark = pytest.mark.cluster

LONGEST_S = 20
_OTHER_RAY = "import ray; ray.__version__ = '2.50.0'; from dytrack_pipelines import cli; cli.main()"
_SMALL = """
mount -t tmpfs -o size=64m tmpfs /dev/shm
mount -t tmpfs -o size=1g tmpfs {folder}/tmp
mount -t tmpfs -o ro tmpfs {folder}/closed
mkdir {folder}/dev
mount -t tmpfs tmpfs {folder}/dev
for each in null zero random urandom shm; do
    if test -d /dev/$each; then mkdir {folder}/dev/$each; else touch {folder}/dev/$each; fi
    mount --bind /dev/$each {folder}/dev/$each
done
touch {folder}/dev/nvidia0
mount --rbind {folder}/dev /dev
"""
"""A machine with little memory and disk, storage that is not to be written, and a GPU's device."""


@pytest.fixture(scope="module")
def seen():
    """What the doctor said of each machine, by its name here."""
    if reason := hosts.why_not() or can():
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="dytw", dir="/tmp"))  # sockets' paths may not be long
    ward = Ward(folder)
    try:
        ward.start()
        yield _all(ward)
    finally:
        ward.close()
        shutil.rmtree(folder, ignore_errors=True)


def _all(ward):
    folder = ward.folder
    for name in ("tmp", "closed"):
        (folder / name).mkdir()
    install(folder / "fakes", opencv_contrib_python="4.10.0", mlflow="3.4.0")
    path = f"{folder}/fakes:{ward.hosts.environment.get('PYTHONPATH', '')}"
    paths = ["--storage", folder / "runs", "--data", folder / "data" / "clips"]
    joined = {"RAY_ADDRESS": ward.ray, **ward.admin()}
    seen = {"sound": ward.doctor(*paths, **joined)}
    joined |= {"MLFLOW_TRACKING_URI": ward.closed_mlflow}
    ward.admit()
    ward.add_reader()
    wrong, reader = dict(ward.admin()), dict(ward.admin())
    wrong["MLFLOW_TRACKING_PASSWORD"] = "another"
    reader["MLFLOW_TRACKING_USERNAME"], reader["MLFLOW_TRACKING_PASSWORD"] = READER.split(":")
    file = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/own.db"}
    no_token = {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN_PATH": None, "HOME": str(folder)}
    looks = {
        "sick": partial(ward.doctor, *paths, **{**joined, **file}),
        "laptop": partial(ward.doctor, *paths, host=LAPTOP, **joined),
        "by ray://": partial(ward.doctor, host=LAPTOP, **joined | {"RAY_ADDRESS": ward.client}),
        "no token": partial(ward.doctor, **joined | no_token),
        "another token": partial(ward.doctor, **joined, RAY_AUTH_TOKEN="0" * 64),
        "open": partial(
            ward.doctor,
            host=LAPTOP,
            RAY_ADDRESS=f"ray://{ward.open_ray.partition(':')[0]}:10001",
            MLFLOW_TRACKING_URI=ward.open_mlflow,
            **no_token,
        ),
        "another Ray": partial(ward.doctor, program=[sys.executable, "-c", _OTHER_RAY], **joined),
        "wrong password": partial(ward.doctor, host=LAPTOP, **wrong),
        "reader": partial(ward.doctor, host=LAPTOP, **reader),
        "small": partial(
            ward.doctor,
            *("--storage", folder / "closed", "--data", "/no/such"),
            host=LAPTOP,
            before=_SMALL.format(folder=folder),
            PYTHONPATH=path,
            RAY_TMPDIR=f"{folder}/tmp",
        ),
        "nothing there": partial(
            ward.doctor, "--gpus", 1, host=LAPTOP, MLFLOW_TRACKING_URI="http://127.0.0.1:1"
        ),
        "411": partial(_with_a_store_that_wants_a_length, ward),
    }
    with ThreadPoolExecutor(2) as threads:
        started = {name: threads.submit(look) for name, look in looks.items()}
    return seen | {name: look.result() for name, look in started.items()}


def _with_a_store_that_wants_a_length(ward):
    program = rclone()
    if program is None:
        return None
    port = free_port()
    (ward.folder / "store" / BUCKET).mkdir(parents=True)
    place = f"{ward.hosts.addresses[HEAD]}:{port}"
    words = ["serve", "s3", "--auth-key", "key,hush", "--addr", place, ward.folder / "store"]
    server = ward.hosts.start(HEAD, program, *words, log="rclone.log")
    deadline = time.monotonic() + 30
    while "Starting" not in (ward.folder / "rclone.log").read_text():
        assert server.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    settings = {**KEYS, "AWS_ENDPOINT_URL_S3": f"http://{place}"}
    return ward.doctor("--storage", f"s3://{BUCKET}/runs", host=LAPTOP, **settings)


FAULTS = {
    # machine: {check: (what is said of it, a word of its cure)}
    "sick": {
        "versions": (
            r"dytrack is \S+ on sound and 9\.9\.9 on sick; torch is \S+ on sound and 1\.2\.3 on",
            "constraints.txt",
        ),
        "two-rays": ("^sick: 2 Rays run here$", "ray stop"),
        "host-name": (r"^sick: its name leads to 127\.0\.1\.1$", "/etc/hosts"),
        "shared-memory": (r"^sick: /dev/shm has 0\.\d GiB free$", "--shm-size"),
        "disk": (r"^sick: the temporary folder has \d\.\d GiB free$", "RAY_TMPDIR"),
        "storage": ("^sick: a file that another node wrote is not there: it is not shared$", "NFS"),
        "data": ("^sick: /.*/data/clips is not readable$", "folder that all nodes share"),
        "mlflow": ("is a file of one machine, and Ray runs on others", "dytrack mlflow up"),
    },
    "laptop": {"ray": ("no node of the cluster at .* runs on this machine", "dytrack submit")},
    "no token": {"ray": ("asks for its token, and this machine has no token", "RAY_AUTH_TOKEN")},
    "another token": {"ray": ("and this machine has another token", "RAY_AUTH_TOKEN")},
    "another Ray": {
        "ray": (r"it runs Ray \S+ on Python \S+, and this process Ray 2\.50\.0", "versions here")
    },
    "open": {
        "token": ("asks for no token: whoever reaches it runs programs", "RAY_AUTH_MODE=token"),
        "mlflow-open": ("answers everybody who reaches it", "--app-name basic-auth"),
    },
    "wrong password": {"mlflow-login": (r"refuses the name and the password.*\(401\)", "PASSWORD")},
    "reader": {"mlflow-writable": (r"does not let this name write \(403", "EDIT")},
    "small": {
        "shared-memory": (r"/dev/shm has 0\.1 GiB free$", "--shm-size"),
        "disk": (r"the temporary folder has 1\.0 GiB free$", "RAY_TMPDIR"),
        "opencv": ("opencv-python-headless and opencv-contrib-python$", "pip uninstall"),
        "storage": ("Read-only file system", "make it writable"),
        "data": ("/no/such is not readable", "copy it to the same path"),
        "gpu": ("has a GPU, and its torch .* cannot use it", "CUDA build"),
        "mlflow-version": (r"has 3\.4\.0; 3\.15 closes known holes", "mlflow db upgrade"),
    },
    "nothing there": {
        "gpu": ("1 are asked for, and there are 0", "add machines with GPUs"),
        "mlflow": ("http://127.0.0.1:1 does not answer", "start the store"),
    },
    "411": {"storage": ("HTTP status 411", "AWS_REQUEST_CHECKSUM_CALCULATION=when_required")},
}
_SICK_TOO = "open"
"""Its Ray runs on the sick host, whose other faults are found with it."""


def test_nothing_is_wrong_with_a_sound_cluster(seen):
    found = seen["sound"]
    assert found.wrong() == {}, found.said
    assert found.returncode == 0
    assert found.seconds <= load.allowed(LONGEST_S)
    assert {"ray", "storage", "data", "mlflow-login", "mlflow-open"} < {
        check["check"] for check in found.checks
    }


@pytest.mark.parametrize(
    ("machine", "check"), [(machine, check) for machine in FAULTS for check in FAULTS[machine]]
)
def test_a_planted_fault_is_found(seen, machine, check, record_property):
    found = seen[machine]
    if found is None:
        pytest.skip("needs rclone 1.65 or later, which serves S3")
    if HAS_GPU and check == "gpu":
        pytest.skip("there is a GPU here")
    detail, cure = FAULTS[machine][check]
    assert found.returncode == 1, found.said
    assert check in found.wrong(), found.said
    wrong = found.wrong()[check]
    assert re.search(detail, wrong["detail"]), wrong
    assert re.search(cure, wrong["cure"]), wrong
    record_property("seconds", round(found.seconds, 1))
    print(f"{machine}, {check}: {found.seconds:.1f} s")
    assert found.seconds <= load.allowed(LONGEST_S)
    assert "hush" not in found.said
    if machine != _SICK_TOO:
        assert set(found.wrong()) == set(FAULTS[machine]), found.said


def test_a_cluster_is_looked_at_from_a_laptop_too(seen):
    """By ray://, where what Ray says of the cluster is told by a task there."""
    found = seen["by ray://"]
    assert found.returncode == 1
    assert "2 nodes at ray://" in found.checks[0]["detail"], found.said
    assert {"versions", "two-rays", "shared-memory", "disk", "host-name"} == set(found.wrong())
    # Ray gives a head half a minute to start a driver's process, which a busy one may not do.
    again = 30 if "asking once more" in found.said else 0
    assert found.seconds <= load.allowed(LONGEST_S) + again
