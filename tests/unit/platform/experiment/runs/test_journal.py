"""A run's log survives a server that does not answer, and a writer that is killed."""

import json
import threading
import time

import pytest

from dytrack_platform.errors import StorageError
from dytrack_platform.experiment.runs import journal as journals
from dytrack_platform.experiment.runs.journal import Journal


class Server:
    """Takes entries while it is up."""

    def __init__(self):
        self.up, self.taken, self.calls = True, [], 0

    def __call__(self, entries):
        self.calls += 1
        if not self.up:
            raise StorageError("it does not answer")
        self.taken += entries

    def points(self):
        return [(e["step"], e["metrics"]["loss"]) for e in self.taken if "metrics" in e]


@pytest.fixture
def server():
    return Server()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(journals, "_LONGEST_PAUSE_S", 0.2)


def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_everything_arrives_in_order(tmp_path, server):
    journal = Journal(tmp_path, server)
    journal.parameters({"seed": 0})
    for step in range(100):
        journal.metrics({"loss": step / 2}, step)
    journal.end("FINISHED")
    journal.start()
    assert journal.stop(10)
    assert server.points() == [(step, step / 2) for step in range(100)]
    assert server.taken[0] == {"parameters": {"seed": "0"}}
    assert server.taken[-1]["status"] == "FINISHED"


def test_what_was_noted_while_the_server_was_away_arrives_when_it_is_back(tmp_path, server):
    journal = Journal(tmp_path, server)
    journal.start()
    server.up = False
    journal.metrics({"loss": 1.0}, 1)
    until(lambda: journal.trouble is not None)
    began = time.monotonic()
    journal.metrics({"loss": 2.0}, 2)  # nobody waits for the server
    assert time.monotonic() - began < 0.1
    assert server.taken == []
    server.up = True
    until(lambda: server.points() == [(1, 1.0), (2, 2.0)])
    assert journal.stop(10)


def test_at_the_end_a_server_has_some_time_to_come_back(tmp_path, server):
    server.up = False
    journal = Journal(tmp_path, server)
    journal.start()
    journal.metrics({"loss": 1.0}, 1)
    journal.end("FINISHED")
    comes_back = threading.Timer(0.7, lambda: setattr(server, "up", True))
    comes_back.start()
    assert journal.stop(20)
    assert server.points() == [(1, 1.0)]
    assert server.taken[-1]["status"] == "FINISHED"


def test_what_could_not_be_delivered_is_kept_for_another_process(tmp_path, server):
    server.up = False
    journal = Journal(tmp_path, server)
    journal.start()
    journal.metrics({"loss": 3.0}, 7)
    journal.end("FINISHED")
    assert not journal.stop(0.6)
    server.up = True
    Journal(tmp_path, server).deliver_all()
    assert server.points() == [(7, 3.0)]
    assert not Journal(tmp_path, server).pending()
    Journal(tmp_path, server).deliver_all()
    assert len(server.taken) == 2


def test_nothing_is_delivered_twice_by_the_next_command(tmp_path, server):
    first = Journal(tmp_path, server)
    first.metrics({"loss": 1.0}, 1)
    first.deliver_all()
    second = Journal(tmp_path, server)
    second.metrics({"loss": 2.0}, 2)
    second.deliver_all()
    assert server.points() == [(1, 1.0), (2, 2.0)]


def test_a_line_that_a_killed_writer_left_torn_hides_no_other(tmp_path, server):
    journal = Journal(tmp_path, server)
    journal.metrics({"loss": 1.0}, 1)
    with (tmp_path / journals.JOURNAL).open("a") as file:
        file.write('{"metrics": {"lo')
    journal.deliver_all()
    assert journal.pending()
    journal.metrics({"loss": 2.0}, 2)
    journal.metrics({"loss": 3.0}, 3)
    journal.deliver_all()
    assert server.points()[0] == (1, 1.0)
    assert server.points()[-1] == (3, 3.0)


def test_what_the_next_writer_notes_first_does_not_go_down_with_a_torn_line(tmp_path, server):
    first = Journal(tmp_path, server)
    first.metrics({"loss": 0.0}, 0)
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write('{"metrics": {"lo')  # killed here
    after = Journal(tmp_path, server)
    for step in (1, 2):
        after.metrics({"loss": float(step)}, step)
    after.deliver_all()
    assert [step for step, _ in server.points()] == [0, 1, 2]


def test_what_no_one_foresaw_neither_ends_the_thread_nor_is_called_slow(tmp_path, server, log):
    failures = [RuntimeError("NoCredentialsError: Unable to locate credentials")]

    def deliver(entries):
        if failures:
            raise failures.pop()
        server(entries)

    journal = Journal(tmp_path, deliver)
    journal.start()
    journal.metrics({"loss": 1.0}, 1)
    until(lambda: journal.trouble or server.taken)
    until(lambda: server.taken)
    assert journal.stop(10)
    assert "NoCredentialsError" in log.getvalue()
    failures.append(OSError("it is on fire"))
    failing = Journal(tmp_path / "other", deliver)
    (tmp_path / "other").mkdir()
    failing.metrics({"loss": 1.0}, 1)
    failing.start()
    until(lambda: failing.trouble)
    assert failing.trouble == "OSError: it is on fire"
    failing.stop(10)


def test_images_lie_beside_the_run_and_are_named_in_the_journal(tmp_path, server):
    journal = Journal(tmp_path, server)
    journal.file("samples/step_1.png", b"png")
    journal.deliver_all()
    assert (tmp_path / "samples/step_1.png").read_bytes() == b"png"
    assert server.taken == [{"file": "samples/step_1.png"}]


def test_threads_do_not_tear_each_others_lines(tmp_path, server):
    journal = Journal(tmp_path, server)

    def write(number):
        for step in range(50):
            journal.metrics({"loss": float(number)}, step)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = (tmp_path / journals.JOURNAL).read_text().splitlines()
    assert len([json.loads(line) for line in lines]) == 200


def test_on_a_full_disk_the_runs_end_still_arrives(tmp_path, server, log):
    folder = tmp_path / "full"  # where nothing can be written
    journal = Journal(folder, server)
    journal.metrics({"loss": 1.0}, 1)
    assert "cannot be written" in journal.trouble
    assert "cannot be written" in log.getvalue()
    assert journal.pending()
    journal.end("FAILED")
    journal.start()
    assert journal.stop(10)
    assert [entry.get("status") for entry in server.taken] == [None, "FAILED"]
    journal.deliver_all()
    assert len(server.taken) == 2


def test_entries_of_runs_below_carry_their_name(tmp_path, server):
    journal = Journal(tmp_path, server)
    child = journal.child("trial-000")
    child.running()
    child.metrics({"loss": 1.0}, step=1)
    journal.metrics({"loss": 2.0}, step=1)
    child.end("FINISHED")
    journal.deliver_all()
    assert [entry.get("child") for entry in server.taken] == ["trial-000"] * 2 + [None, "trial-000"]
