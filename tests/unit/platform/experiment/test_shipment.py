"""What travels with a job, and what may not be left in its folder."""

import pytest

from dytrack_platform.errors import ConfigurationError
from dytrack_platform.experiment.cluster import shipment
from dytrack_platform.experiment.cluster.shipment import pack
from dytrack_platform.storage import job
from dytrack_platform.storage.outputs import check_folder, check_outputs


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "package"
    (folder / "__pycache__").mkdir(parents=True)
    (folder / "__pycache__" / "a.pyc").write_bytes(bytes(10_000))
    (folder / "a.py").write_bytes(bytes(1000))
    return str(folder)


def _pack(tmp_path, package, *words):
    folder = tmp_path / "job"
    folder.mkdir()
    return pack(words, [package], folder), folder


def test_files_of_one_name_arrive_both_also_behind_an_option(tmp_path, package):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "r.yaml").write_text(name)
    words = ("train", f"{tmp_path}/a/r.yaml", f"--other={tmp_path}/b/r.yaml", "--set", "a.b=c.yaml")
    packed, folder = _pack(tmp_path, package, *words)
    assert packed.words == ("train", "0-r.yaml", "--other=1-r.yaml", "--set", "a.b=c.yaml")
    assert (folder / "0-r.yaml").read_text() == "a"
    assert (folder / "1-r.yaml").read_text() == "b"
    assert packed.size_bytes == 1002
    assert "1 packages and" in packed.sentence()


def test_words_are_quoted_for_the_shell_that_the_job_has(tmp_path, package):
    packed, _ = _pack(tmp_path, package, "train", "a b; rm -rf $HOME")
    assert packed.entrypoint.endswith("train 'a b; rm -rf $HOME'")


def test_what_tells_two_jobs_apart_is_what_they_run(tmp_path, package):
    recipe = tmp_path / "r.yaml"
    digests = []
    for number, text in enumerate(("one", "two", "one")):
        recipe.write_text(text)
        folder = tmp_path / f"job{number}"
        folder.mkdir()
        digests.append(pack(("train", str(recipe)), [package], folder).digest)
    assert digests[0] == digests[2] != digests[1]


@pytest.mark.parametrize("name", ["weights.safetensors", "large.json", "folder"])
def test_what_lies_here_and_does_not_travel_is_said_or_refused(
    tmp_path, package, monkeypatch, name
):
    monkeypatch.setattr(shipment, "_LARGEST", 100)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    path = tmp_path / "here" / name
    if name == "folder":
        path.mkdir()
    else:
        path.write_bytes(bytes(101))
    with pytest.raises(ConfigurationError, match=rf"^here/{name}: lies on this machine and does"):
        _pack(tmp_path, package, "evaluate", f"--model=here/{name}")
    folder = tmp_path / "another"
    folder.mkdir()
    packed = pack(("evaluate", "--model", str(path)), [package], folder)
    assert packed.left == (path,)
    assert packed.sentence().endswith(
        f"; {path} does not: the job opens it at this path on its node"
    )


def test_a_word_that_is_also_a_folders_name_is_a_word(tmp_path, package, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for word in ("train", "val"):
        (tmp_path / word).mkdir()
    packed, _ = _pack(tmp_path, package, "train", "--split", "val")
    assert packed.left == ()


def test_a_package_that_ray_would_not_take_is_refused(tmp_path, package, monkeypatch):
    monkeypatch.setattr(shipment, "_LARGEST_PACKAGE", 999)
    with pytest.raises(ConfigurationError, match="MiB, and Ray takes a package of at most"):
        _pack(tmp_path, package, "train")


@pytest.fixture
def in_job(monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")


def test_a_job_refuses_places_that_are_removed_with_it(in_job, tmp_path):
    with pytest.raises(ConfigurationError, match="removed with the job; name an absolute path"):
        job.require_kept("train.storage", "runs")
    for kept in (None, "/nfs/runs", "s3://bucket/runs"):
        job.require_kept("train.storage", kept)
    with pytest.raises(ConfigurationError, match=r"--json: s\.json would lie in the job's"):
        check_outputs({"--json": "s.json"})
    with pytest.raises(ConfigurationError, match="--out: results would lie"):
        check_folder("--out", "results", (), ())
    check_outputs({"--json": tmp_path / "s.json"})


@pytest.mark.parametrize(
    ("uri", "given", "right"),
    [
        ("sqlite:///mlflow.db", False, False),
        ("sqlite:///mlflow.db", True, False),
        ("sqlite:////nfs/mlflow.db", True, True),
        ("http://server:5000", True, True),
    ],
)
def test_a_job_refuses_a_store_in_its_folder(in_job, uri, given, right):
    if right:
        job.require_store(uri, given)
    else:
        with pytest.raises(ConfigurationError, match=r"^MLFLOW_TRACKING_URI: is not set"):
            job.require_store(uri, given)


def test_outside_of_a_job_nothing_is_refused(monkeypatch):
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    job.require_kept("train.storage", "runs")
    job.require_store("sqlite:///mlflow.db", given=False)


def test_a_promised_secret_must_be_there(monkeypatch):
    monkeypatch.setenv(job.SECRETS, "A_KEY,B_KEY")
    monkeypatch.setenv("A_KEY", "x")
    monkeypatch.delenv("B_KEY", raising=False)
    with pytest.raises(ConfigurationError, match=r"^B_KEY: the job needs this secret"):
        job.require_secrets()
    monkeypatch.setenv("B_KEY", "y")
    job.require_secrets()
