"""Ray Serve: replicas of the server behind one address, and a board that they share.

A WebSocket stays on the replica that it reached. Replicas tell a small actor, the board, how they
are; any of them answers ``/metrics`` for all, and hears from the board when the server stops.
"""

import asyncio
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from dytrack_platform.experiment.cluster import room, session  # Ray's environment first

import ray  # isort: skip
from ray import serve
from starlette.applications import Starlette

from dytrack_model.runtime.engine import Precision
from dytrack_platform.errors import ClusterError, ConfigurationError, DyTrackError
from dytrack_platform.experiment.runs import tracking
from dytrack_platform.experiment.serve.sources import make_source
from dytrack_platform.serving.app import Server
from dytrack_platform.serving.limits import Settings
from dytrack_platform.serving.metrics import merge
from dytrack_platform.serving.models import Source, require_names

# Its messages about applications and proxies say nothing that a user of the command can act on.
logging.getLogger("ray.serve").setLevel(logging.WARNING)

_LOG = logging.getLogger(__name__)

APP = "dytrack"
_BOARD = "dytrack-serve-board"
_QUIET = {"log_level": "WARNING", "enable_access_log": False}
_TELL_S = 1.0
_FORGET_S = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeConfig:
    """What is served where."""

    models: tuple[str, ...]
    """References; the first is the default."""
    host: str = "127.0.0.1"
    port: int = 8000
    replicas: int = 1
    threads: int = 1
    """Of the network in each replica."""
    runtime: str | None = None
    precision: Precision = "auto"
    device: str = "cpu"
    tls_key: str | None = None
    tls_certificate: str | None = None


@ray.remote(num_cpus=0)
class Board:
    """What replicas know of each other."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[float, str, bool]] = {}
        self._stopping = False

    def tell(self, replica: str, metrics: str, drained: bool) -> bool:
        """Take in one replica's metrics; returns whether it should stop."""
        self._told[replica] = (time.monotonic(), metrics, drained)
        return self._stopping

    def metrics(self) -> dict[str, str]:
        """Return the metrics of every replica that was heard of lately."""
        now = time.monotonic()
        self._told = {k: v for k, v in self._told.items() if now - v[0] < _FORGET_S}
        return {replica: told[1] for replica, told in self._told.items()}

    def stop(self) -> None:
        """Have every replica drain."""
        self._stopping = True

    def drained(self) -> bool:
        """Say whether every replica has drained."""
        self.metrics()
        return all(told[2] for told in self._told.values())


class Replica:
    """One replica: the server, and its word to the board."""

    def __init__(self, config: ServeConfig, settings: Settings, store: str) -> None:
        os.environ["MLFLOW_TRACKING_URI"] = store
        self._name = serve.get_replica_context().replica_id.unique_id
        self._board = ray.get_actor(_BOARD, namespace=_BOARD)
        self._server = Server(_sources(config), replace(settings, holds_back=False), self._gather)
        self._drained = False

    def __serve_build_asgi_app__(self) -> Starlette:
        """Return the application; Ray Serve calls it once."""
        self._teller = asyncio.get_running_loop().create_task(self._tell())
        return self._server.app()

    async def _gather(self) -> str:
        await self._board.tell.remote(self._name, self._server.snapshot(), self._drained)
        return merge(await self._board.metrics.remote())

    async def _tell(self) -> None:
        while True:
            snapshot = self._server.snapshot()
            try:
                stop = await self._board.tell.remote(self._name, snapshot, self._drained)
            except ray.exceptions.RayError:
                stop = False
            if stop and not self._drained:
                await self._server.drain()
                self._drained = True
                continue
            await asyncio.sleep(_TELL_S)


def make_board(**options: Any) -> Any:  # noqa: ANN401  (Ray's own options, and an actor's handle)
    """Make the board, or find the one that is there."""
    return Board.options(  # type: ignore[attr-defined]  # added by the decorator
        name=_BOARD, namespace=_BOARD, get_if_exists=True, **options
    ).remote()


def bind(config: ServeConfig, settings: Settings) -> serve.Application:
    """Return the application: the replicas as Ray Serve deploys them."""
    deployment = serve.deployment(
        num_replicas=config.replicas,
        ray_actor_options={
            "num_cpus": config.threads,
            "num_gpus": int(_on_gpu(config)),
        },
        max_ongoing_requests=settings.limits.connections + 64,
        graceful_shutdown_timeout_s=settings.limits.drain_s,
        health_check_period_s=2,
        logging_config=_QUIET,
    )(serve.ingress()(Replica))
    return deployment.bind(config, settings, tracking.absolute_uri())


@contextmanager
def serving(config: ServeConfig, settings: Settings) -> Iterator[str]:
    """Serve until the body ends, then drain; yields the address.

    Raises:
        ClusterError: Ray does not start the replicas.
        ConfigurationError: It has fewer CPUs or GPUs than they need.
        DyTrackError: A model cannot be loaded.
    """
    sources = _sources(config)  # refuse here what every replica would refuse
    require_names(sources)
    for source in sources:
        source.version()
    with session.ray_session():
        _require_room(config)
        board = make_board()
        options: dict[str, Any] = {"host": config.host, "port": config.port}
        if config.tls_key and config.tls_certificate:
            options |= {"ssl_keyfile": config.tls_key, "ssl_certfile": config.tls_certificate}
        serve.start(http_options=options, logging_config=_QUIET)
        try:
            application = bind(config, settings)
            serve.run(application, name=APP, route_prefix="/", logging_config=_QUIET)
            scheme = "https" if config.tls_key else "http"
            yield f"{scheme}://{config.host}:{config.port}"
            ray.get(board.stop.remote())
            _wait_until_drained(board, settings.limits.drain_s)
        except RuntimeError as error:
            raise _failed(error) from error
        finally:
            serve.shutdown()  # type: ignore[no-untyped-call]
            ray.kill(board)


def _sources(config: ServeConfig) -> list[Source]:
    return [
        make_source(model, config.runtime, config.precision, config.device, config.threads)
        for model in config.models
    ]


def _require_room(config: ServeConfig) -> None:
    """Wait for nodes that may still be coming, and refuse what Ray Serve would wait for in vain."""
    bundle = {"CPU": float(config.threads)} | ({"GPU": 1.0} if _on_gpu(config) else {})
    if lack := room.lacking([bundle] * config.replicas, _LOG.warning):
        cure = "use --device cpu" if "GPU" in lack else "lower --replicas or --threads"
        raise ConfigurationError(f"--replicas: {lack}; {cure}, or add nodes")


def _on_gpu(config: ServeConfig) -> bool:
    return config.device.startswith("cuda")


def _wait_until_drained(board: Any, seconds: float) -> None:  # noqa: ANN401  (an actor's handle)
    until = time.monotonic() + seconds
    while time.monotonic() < until and not ray.get(board.drained.remote()):
        time.sleep(0.1)


def _failed(error: Exception) -> DyTrackError:
    """Find the sentence in what Ray Serve tells of a replica that does not start."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("dytrack_")] or lines[-1:]
    return ClusterError(f"Ray Serve does not start: {told[-1][:300] if told else error}")
