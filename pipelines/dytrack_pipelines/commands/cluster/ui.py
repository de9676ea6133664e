"""Look at runs and models: ``dytrack ui`` starts MLflow's page on this machine's loopback."""

import typer

from dytrack_pipelines.commands.cluster import mlflow_server
from dytrack_pipelines.commands.serve import require_free
from dytrack_pipelines.terminal import screen
from dytrack_pipelines.terminal.options import Port


def ui(
    port: Port = 5000,
) -> None:
    """Show runs, Pareto fronts and published models in MLflow's page."""
    from dytrack_platform.experiment.runs import tracking

    # Refuse a port that something else listens on, before a server fails on it.
    require_free("127.0.0.1", port)
    # Make the store's tables, so that an empty page opens rather than an error.
    tracking.connect()
    # Serve until interrupted.
    screen.say(f"MLflow on http://127.0.0.1:{port} (store {tracking.shown()}); Ctrl-C ends it")
    words = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    raise typer.Exit(mlflow_server.serve(tracking.uri(), words))
