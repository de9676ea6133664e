"""A server that answers as MLflow's does, for whoever asks it."""

import http.server
import threading

import pytest


class _Server(http.server.BaseHTTPRequestHandler):
    """An MLflow server or a dashboard, as far as it is asked here."""

    version, code = "3.17.2", 401

    def do_GET(self):
        if self.path == "/version":
            status, body = 200, self.version
        elif self.path == "/health":
            status, body = 200, "OK"
        else:
            status, body = self.code, ""
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    kind = type("Planted", (_Server,), {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}", kind
        running.shutdown()
