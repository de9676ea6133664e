"""Following a job, without a cluster."""

from ray.job_submission import JobStatus

from dytrack_platform.experiment.cluster import jobs


class Cut:
    """A client whose log streams are cut in the middle; the job has ended when the last is read."""

    def __init__(self, *streams):
        self.streams = list(streams)

    async def tail_job_logs(self, job):
        pieces = self.streams.pop(0)
        for piece in pieces:
            yield piece
        if self.streams:
            raise RuntimeError("WebSocket connection closed unexpectedly")

    def get_job_status(self, job):
        return JobStatus.RUNNING if self.streams else JobStatus.SUCCEEDED

    def get_job_info(self, job):
        return type("Info", (), {"driver_exit_code": 3, "status": JobStatus.SUCCEEDED})


def test_what_a_cut_stream_has_said_is_not_said_again(monkeypatch):
    client = Cut(["one\n", "two\n"], ["one\ntw"], [], ["one\ntwo\nthr", "ee\n"])
    monkeypatch.setattr(jobs, "connect", lambda address: client)
    monkeypatch.setattr(jobs.time, "sleep", lambda seconds: None)
    said = []
    assert jobs.follow(jobs.Job(id="a", address="http://there"), said.append) == 3
    assert "".join(said) == "one\ntwo\nthree\n"
