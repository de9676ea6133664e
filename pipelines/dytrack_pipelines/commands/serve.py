"""Serve a tracker to programs and browsers: ``dytrack serve --model models:/dytrack@champion``.

Hardware: CPU cores or a GPU; a small tracker follows several streams of 25 frames/s on one core.
A WebSocket for each stream, a page to try it at ``/``; docs/serving.md specifies the protocol. When
the alias moves, the new version is loaded beside the old one and streams go over at their next
frame. Ctrl-C answers what was sent and ends.
"""

import os
import secrets
import signal
import socket
import threading
from pathlib import Path
from typing import Annotated

import typer

from dytrack_pipelines.terminal import screen
from dytrack_pipelines.terminal.options import Precision, Runtime

TOKEN = "DYTRACK_SERVE_TOKEN"


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="models:/NAME@ALIAS, models:/NAME/3, a folder, or reference. Repeatable: "
            "the first is the default, clients may ask for the others."
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    replicas: Annotated[int, typer.Option(min=1, max=1024, help="Processes that track.")] = 1,
    threads: Annotated[
        int, typer.Option(min=1, max=1024, help="Threads of the network in each replica.")
    ] = 1,
    runtime: Runtime = None,
    precision: Precision = "auto",
    device: Annotated[str, typer.Option(help="Where PyTorch runs: cpu or cuda.")] = "cpu",
    token_file: Annotated[
        Path | None,
        typer.Option(help=f"File with the token that clients show; or the variable {TOKEN}."),
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="Certificate chain (PEM) for https and wss.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key (PEM).")] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow another address without TLS.")
    ] = False,
    deadline_ms: Annotated[
        float, typer.Option(help="Milliseconds in which answers should be there.")
    ] = 40.0,
    max_streams: Annotated[
        int, typer.Option(min=1, max=65535, help="Streams of one replica.")
    ] = 64,
    idle_s: Annotated[
        float, typer.Option(help="Seconds of silence after which a stream ends.")
    ] = 60.0,
    audit_every: Annotated[
        int,
        typer.Option(
            min=0, max=1_000_000, help="One frame in so many is checked at full depth; 0: none."
        ),
    ] = 50,
    correct: Annotated[
        bool, typer.Option("--correct", help="Let thresholds follow what audits say.")
    ] = False,
    poll_s: Annotated[float, typer.Option(help="Seconds between two looks at the alias.")] = 5.0,
) -> None:
    """Serve a tracker over WebSockets, with a page to try it."""
    from dytrack_platform.errors import RuntimeMissingError

    # The server's libraries are an extra.
    try:
        from dytrack_platform.experiment.serve.deployment import ServeConfig, serving
    except ModuleNotFoundError as error:
        raise RuntimeMissingError(
            f"{error.name} is not installed: pip install 'dytrack[serve]'"
        ) from error
    from dytrack_platform.serving.limits import Limits, Settings

    # Refuse what is unsafe or cannot be, before anything starts.
    token = read_token(token_file)
    require_safe(host, token, tls=tls_certificate is not None, insecure=insecure)
    require_free(host, port)
    require_pair(tls_certificate, tls_key)
    settings = Settings(
        limits=Limits(streams=max_streams, idle_s=idle_s),
        deadline_ms=deadline_ms,
        audit_every=audit_every,
        correct=correct,
        token=token,
        secret=secrets.token_hex(32),
        poll_s=poll_s,
    )
    config = ServeConfig(
        models=tuple(model or ("reference",)),
        host=host,
        port=port,
        replicas=replicas,
        threads=threads,
        runtime=runtime,
        precision=precision,
        device=device,
        tls_key=str(tls_key) if tls_key else None,
        tls_certificate=str(tls_certificate) if tls_certificate else None,
    )
    # Start the replicas, and serve until told to end.
    stopped = threading.Event()
    screen.say(f"starting Ray and {replicas} replica{'s' * (replicas > 1)}: half a minute or so")
    with serving(config, settings) as address:
        for number in (signal.SIGINT, signal.SIGTERM):  # Ray has put its own in the way
            signal.signal(number, lambda *_: stopped.set())
        screen.say(f"serving {', '.join(config.models)} on {address}  (Ctrl-C drains and ends)")
        stopped.wait()
        screen.say("stopping: what was sent is still answered")
    screen.say("stopped")


def read_token(path: Path | None) -> str:
    """Read the token from a file or the environment; empty where there is none.

    Raises:
        ConfigurationError: The file is missing or empty, or the token has characters that headers
            do not.
    """
    from dytrack_platform.errors import ConfigurationError

    if path is None:
        token = os.environ.get(TOKEN, "")
    else:
        if not path.is_file():
            raise ConfigurationError(f"--token-file {path}: no such file")
        token = path.read_text().strip()
        if not token:
            raise ConfigurationError(f"--token-file {path}: is empty")
    if token and not all((sign.isascii() and sign.isalnum()) or sign in "-._~" for sign in token):
        raise ConfigurationError("token: use letters, digits and - . _ ~ only")
    return token


def require_safe(host: str, token: str, *, tls: bool, insecure: bool) -> None:
    """Refuse to be reached from other machines without a token and without TLS.

    Raises:
        ConfigurationError: It says which of them is missing.
    """
    from dytrack_platform.errors import ConfigurationError
    from dytrack_platform.storage.addresses import is_loopback

    if is_loopback(host):
        return
    if not token:
        raise ConfigurationError(
            f"--host {host}: other machines could reach it: give a token by --token-file or {TOKEN}"
        )
    if not tls and not insecure:
        raise ConfigurationError(
            f"--host {host}: the token would travel in the open: give --tls-certificate and "
            "--tls-key, or --insecure behind a proxy that has TLS"
        )


def require_pair(certificate: Path | None, key: Path | None) -> None:
    """Refuse a certificate without a key, and files that are not there.

    Raises:
        ConfigurationError: It names the option.
    """
    from dytrack_platform.errors import ConfigurationError

    if (certificate is None) != (key is None):
        raise ConfigurationError("--tls-certificate and --tls-key: give both or neither")
    for file in (certificate, key):
        if file is not None and not file.is_file():
            raise ConfigurationError(f"{file}: no such file")


def require_free(host: str, port: int) -> None:
    """Refuse an address that cannot be listened on.

    Raises:
        ClusterError: Something else listens there, or it is not this machine's.
    """
    from dytrack_platform.errors import ClusterError

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ClusterError(
                f"{host}:{port} is in use or not allowed ({error.strerror}); choose another by "
                "--port"
            ) from error
