"""Stores that refuse: for a moment, for ever, or because of the keys."""

import contextlib
import http.server
import re
import threading
import time

import pytest

from dytrack_platform.errors import DataError, StorageError
from dytrack_platform.experiment.train.patient_store import PatientS3, patient_store
from dytrack_platform.storage import files
from dytrack_platform.storage.arrow_store import StoredFile
from dytrack_platform.storage.patience import attempts, patience, telling_if_slow
from dytrack_platform.storage.tree import Tree


@pytest.fixture
def store(monkeypatch):
    """A server that answers as it is told to; returns the codes to answer with, and a URL."""
    codes, asked = [], []

    class Answer(http.server.BaseHTTPRequestHandler):
        def answer(self):
            asked.append(self.path)
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(codes.pop(0) if len(codes) > 1 else codes[0])
            self.send_header("content-length", "0")
            self.end_headers()

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "hush",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    options = f"?endpoint_override=127.0.0.1:{server.server_port}&scheme=http&region=us-east-1"
    yield codes, asked, f"s3://bucket/clips{options}"
    server.shutdown()
    server.server_close()


def test_a_store_that_is_busy_for_a_moment_is_asked_again(store):
    codes, asked, url = store
    codes[:] = [503, 404]
    assert not Tree(url).is_file("manifest.json")
    assert len(asked) >= 2


@pytest.mark.parametrize(
    "call",
    [
        lambda tree: tree.is_folder(),
        lambda tree: tree.is_file("a"),
        lambda tree: tree.names(),
        lambda tree: tree.read_bytes("a"),
        lambda tree: tree.write_bytes("a", b"b"),
        lambda tree: tree.remove("a"),
    ],
)
def test_keys_that_a_store_refuses_are_one_sentence(store, call):
    codes, _, url = store
    codes[:] = [403]
    with pytest.raises(DataError) as raised:
        call(Tree(url))
    said = str(raised.value)
    assert said.startswith("s3://bucket/clips")
    assert "the store refuses the keys it was given (" in said
    assert said.endswith("to keys that may use this bucket")
    assert "hush" not in said


@pytest.mark.slow
def test_a_store_that_stays_away_is_not_an_empty_one(store):
    codes, _, url = store
    codes[:] = [503]
    began = time.monotonic()
    with pytest.raises(StorageError, match="the store does not say what is there"):
        Tree(url).is_folder()
    with pytest.raises(StorageError, match="look whether the store answers"):
        Tree(url).write_bytes("a", b"b")
    assert time.monotonic() - began < 30


def test_a_run_is_patient_and_a_first_look_is_not():
    before = attempts()
    with patience():
        assert attempts() == attempts(patient=True) > before
        seen = []
        thread = threading.Thread(target=lambda: seen.append(attempts()))
        thread.start()
        thread.join()
        assert seen == [attempts()], "threads that load are as patient"
        with patience():
            pass
        assert attempts() > before
    assert attempts() == before


@pytest.mark.slow
def test_whoever_is_patient_hears_of_a_store_that_takes_long(store):
    codes, _, url = store
    said = []
    codes[:] = [503, 503, 200]
    with patience(said.append, tell_after_s=0.05):
        Tree(url).write_bytes("a", b"b")
    request = r"s3://bucket/clips/a: the request is"
    slow = request + " not answered after 0.05 s: the store is slow or refuses; trying on"
    assert re.fullmatch(slow, said[0]), said
    assert re.fullmatch(request + r" answered, after \d+ s", said[1]), said
    said.clear()
    with patience(said.append):
        Tree(url).write_bytes("a", b"b")
    assert said == [], "an answer at once is no news"


@pytest.mark.slow
def test_whoever_is_patient_hears_of_a_file_whose_reading_takes_long(store):
    codes, _, url = store
    said = []
    codes[:] = [200]
    with Tree(url).open("a") as file, patience(said.append, tell_after_s=0.05):
        assert isinstance(file, StoredFile)
        file.stream = SlowStream()
        assert file.read(4) == b"late"
    assert re.fullmatch(r"s3://bucket/clips/a: the request is not answered after .*", said[0]), said
    assert re.fullmatch(r"s3://bucket/clips/a: the request is answered, after \d+ s", said[1])


class SlowStream:
    closed = False

    def read(self, size):
        time.sleep(0.3)
        return b"late"

    def close(self):
        self.closed = True


def test_the_store_of_ray_train_is_opened_anew_in_each_process(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    store, path = patient_store("s3://bucket/runs", "channel")
    assert path == "bucket/runs"
    again_from, sent = store.__reduce__()
    assert sent == ("s3://bucket/runs", "channel"), "no key travels"
    again = again_from(*sent)
    assert isinstance(again, PatientS3)
    assert (again.url, again.channel_name) == sent
    assert patient_store("/data/runs", "channel") == (None, "/data/runs")


@pytest.mark.slow
def test_the_store_of_ray_train_tells_where_its_controller_waits(store, monkeypatch):
    codes, _, url = store
    said = []
    patient, path = patient_store(url.replace("/clips?", "/runs?"), "channel")
    path = path.partition("?")[0]
    monkeypatch.setattr(PatientS3, "say", lambda self, sentence: said.append(sentence))
    monkeypatch.setattr(PatientS3, "tell_after_s", 0.05)
    slow = rf"s3://{path}/{{}}: the request is not answered after 0.05 s: .*; trying on"
    for name, call in {
        "state.json": lambda where: _write(patient, where),
        "step_5": lambda where: patient.delete_dir(where),
    }.items():
        said.clear()
        codes[:] = [503, 503, 200]
        # What a real store would answer next is not what this one does.
        with contextlib.suppress(OSError):
            call(f"{path}/{name}")
        assert re.fullmatch(slow.format(name), said[0]), said


def _write(store, path):
    with store.open_output_stream(path) as stream:
        stream.write(b"{}")


def test_what_takes_long_is_told_once_and_again_when_it_is_done():
    said = []
    with telling_if_slow("s3://b/r: the checkpoint", "written", said.append, after_s=0.05):
        time.sleep(0.3)
    assert said[0].startswith("s3://b/r: the checkpoint is not written after 0.05 s: ")
    assert said[1].startswith("s3://b/r: the checkpoint is written, after ")
    said.clear()
    with telling_if_slow("x", "read", said.append, after_s=5):
        pass
    with pytest.raises(OSError, match="full"), telling_if_slow("x", "read", said.append, after_s=5):
        raise OSError("full")
    assert said == []


def test_a_written_file_needs_no_folder_in_a_bucket(store):
    codes, asked, url = store
    codes[:] = [200]
    files.write_bytes(url.replace("/clips?", "/clips/a/b?"), b"c")
    assert asked
    assert not [path for path in asked if path.partition("?")[0].endswith("/")]
