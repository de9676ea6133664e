"""A server that answers as MLflow's does, for whoever asks it."""

import http.server
import threading

import pytest


class _Server(http.server.BaseHTTPRequestHandler):
    """An MLflow server or a dashboard, as far as it is asked here."""

    version = "3.17.2"
    known = None
    """Header ``Authorization`` of who is let in; everybody where None."""
    code, may_write = 401, True
    """What others get, and whether who is known may write."""
    posted = 0

    def do_GET(self):
        known = self.known is not None and self.headers.get("Authorization") == self.known
        if self.path == "/health":
            self._answer(200, "OK")
        elif self.path == "/version" and (known or self.known is None):
            self._answer(200, self.version)
        elif known or (self.code == 200 and not self.path.startswith("/api/version")):
            self._answer(200, '{"experiment": {"experiment_id": "7"}}')
        else:
            self._answer(self.code, "")

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        type(self).posted += 1
        self._answer(*((200, "{}") if self.may_write else (403, '{"message": "not yours"}')))

    def _answer(self, status, body):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    kind = type("Planted", (_Server,), {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}", kind
        running.shutdown()
