"""Look at runs and models: ``dytrack ui`` starts MLflow's page on this machine's loopback."""

import os
import socket
import subprocess
import sys

import typer

from dytrack_pipelines.terminal import screen
from dytrack_pipelines.terminal.options import Port


def ui(
    port: Port = 5000,
) -> None:
    """Show runs, Pareto fronts and published models in MLflow's page."""
    from dytrack_platform.errors import ClusterError
    from dytrack_platform.experiment.runs import tracking

    # Refuse a port that something else listens on, before a server fails on it.
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ClusterError(
                f"port {port} on 127.0.0.1 is in use or not allowed ({error.strerror}); "
                "choose another with --port"
            ) from error
    # Make the store's tables, so that an empty page opens rather than an error.
    tracking.connect()
    # Serve until interrupted. MLflow's job runner would start ten more processes for nothing.
    screen.say(f"MLflow on http://127.0.0.1:{port} (store {tracking.uri()}); Ctrl-C ends it")
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", tracking.uri()]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    raise typer.Exit(subprocess.run(command, env=environment, check=False).returncode)
