"""Addresses of trials' runs, for pages whose points can be clicked."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dytrack_platform.experiment.runs import tracking
from dytrack_platform.experiment.search.front import rebuild

PARENT = {"run_id": "p1", "experiment_id": "7", "status": "RUNNING", "artifact_uri": "a"}
CHILD = {**PARENT, "run_id": "c1", "run_name": "trial-003"}


class Store(BaseHTTPRequestHandler):
    """Knows one search with one trial."""

    def do_GET(self):
        self._say({"run": {"info": PARENT, "data": {}}})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self._say({"runs": [{"info": CHILD, "data": {}}]})

    def _say(self, content):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *about):
        """Say nothing."""


@pytest.fixture
def port():
    with ThreadingHTTPServer(("127.0.0.1", 0), Store) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_a_point_leads_to_its_trials_run_and_shows_no_password(port, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{port}")
    tracking.mlflow.set_tracking_uri(tracking.uri())
    found = rebuild.links_of("p1")
    assert found == {"trial-003": f"http://127.0.0.1:{port}/#/experiments/7/runs/c1"}


def test_a_store_that_is_away_or_has_no_pages_gives_no_links(monkeypatch, tmp_path):
    for store in ("http://127.0.0.1:1", f"sqlite:///{tmp_path / 'm.db'}"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
        tracking.mlflow.set_tracking_uri(store)
        assert rebuild.links_of("p1") == {}
