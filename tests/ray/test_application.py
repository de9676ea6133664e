"""What a RayService builds, built by Ray Serve here: it answers, and only to who has the token."""

import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

pytestmark = pytest.mark.ray

SERVE = """
import sys
from ray import serve
from dytrack_platform.experiment.cluster import session
from dytrack_platform.experiment.serve.application import build
with session.ray_session(cpus=2):
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    # As Ray Serve's own configuration files do: a function by its name, and its arguments.
    serve.run(build({"models": ["reference"], "replicas": 1, "streams": 3}), name="dytrack")
    print("ready", flush=True)
    sys.stdin.read()
    serve.shutdown()
"""


def test_the_application_of_a_service_answers_to_who_has_the_token():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "DYTRACK_SERVE_TOKEN": "open-sesame"},
    )
    assert process.stdout is not None
    try:
        while (line := process.stdout.readline()) and line.strip() != "ready":
            pass
        assert line
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(port)
        assert refused.value.code == 401
        refused.value.close()
        assert json.loads(ask(port, "open-sesame"))["version"]
    finally:
        process.communicate(timeout=180)
    assert process.returncode == 0


def ask(port, token=""):
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/model")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.read().decode()
