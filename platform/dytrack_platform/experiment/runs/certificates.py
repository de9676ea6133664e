"""Which servers are who they say they are: TLS as MLflow itself would ask for it.

Our own look at a server must trust neither more nor less than MLflow does afterwards.
"""

import os
import ssl
from pathlib import Path

import certifi

from dytrack_platform.errors import AccessError

_SERVER = "MLFLOW_TRACKING_SERVER_CERT_PATH"
_CLIENT = "MLFLOW_TRACKING_CLIENT_CERT_PATH"
_INSECURE = "MLFLOW_TRACKING_INSECURE_TLS"
_OTHERS = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Where the library that MLflow asks with looks for certificates, in its order."""


def context() -> ssl.SSLContext:
    """Return what an HTTPS request to an MLflow server is made with.

    Raises:
        AccessError: A file that the environment names is not there or holds no certificate, or
            two settings contradict each other.
    """
    trusted = os.environ.get(_SERVER, "")
    insecure = os.environ.get(_INSECURE, "").lower() in ("1", "true")
    if insecure and trusted:
        raise AccessError(f"{_INSECURE} and {_SERVER} are both set: unset one of them")
    name = _SERVER
    if not trusted and not insecure:
        name = next((other for other in _OTHERS if os.environ.get(other)), "")
        trusted = os.environ.get(name, "") or certifi.where()
    made = ssl.create_default_context()
    if insecure:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    else:
        _load(name, trusted, made)
    if own := os.environ.get(_CLIENT):
        try:
            made.load_cert_chain(own)
        except OSError as error:
            raise _unusable(_CLIENT, own, error) from error
    return made


def refusal(address: str, error: object) -> AccessError | None:
    """Say what to set where a server's certificate is the reason; None for any other reason.

    Args:
        address: The server, as it may be shown.
        error: Why it was not reached.
    """
    if not isinstance(error, ssl.SSLCertVerificationError):
        return None
    return AccessError(
        f"the certificate of the MLflow store {address} is not trusted ({error.verify_message}): "
        f"set {_SERVER} to the file of the certificate, or of the authority that signed it, on "
        f"every machine that records; or, where nobody listens in between, {_INSECURE}=true"
    )


def _load(name: str, trusted: str, made: ssl.SSLContext) -> None:
    try:
        if Path(trusted).is_dir():
            made.load_verify_locations(capath=trusted)
        else:
            made.load_verify_locations(cafile=trusted)
    except OSError as error:
        raise _unusable(name, trusted, error) from error


def _unusable(name: str, file: str, error: OSError) -> AccessError:
    # An error of TLS is one of the system too, with a text that only its authors understand.
    why = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
    return AccessError(f"{name}: {file} cannot be used ({why}): name a PEM file that is there")
