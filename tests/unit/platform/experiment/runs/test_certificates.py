"""HTTPS servers: who is trusted, and what is said of a certificate that is not."""

import datetime
import http.server
import ipaddress
import json
import ssl
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from dytrack_platform.errors import AccessError
from dytrack_platform.experiment.doctor.services import judge_mlflow
from dytrack_platform.experiment.runs import certificates, store, tracking

SETTINGS = (
    *("MLFLOW_TRACKING_SERVER_CERT_PATH", "MLFLOW_TRACKING_CLIENT_CERT_PATH"),
    *("MLFLOW_TRACKING_INSECURE_TLS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)


class _Server(http.server.BaseHTTPRequestHandler):
    """As much of MLflow as a first look asks for."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        found = {"experiment_id": "7", "name": "dytrack", "lifecycle_stage": "active"}
        self.wfile.write(json.dumps({"experiment": found}).encode())

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A file with a certificate of 127.0.0.1 that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "here")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "own.pem"
    file.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return file


@pytest.fixture
def secure(certificate, monkeypatch):
    """The address of an HTTPS server that nobody vouches for, with nothing set about it."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server) as running:
        running.socket = tls.wrap_socket(running.socket, server_side=True)
        running.handle_error = lambda *_: None  # who does not trust it hangs up
        threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True).start()
        address = f"https://127.0.0.1:{running.server_address[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        yield address
        running.shutdown()


def test_a_certificate_that_nobody_vouches_for_is_said_with_what_to_set(secure):
    with pytest.raises(AccessError) as refused:
        tracking.connect()
    said = str(refused.value)
    assert f"certificate of the MLflow store {secure} is not trusted (self-signed cert" in said
    assert "set MLFLOW_TRACKING_SERVER_CERT_PATH" in said
    assert "MLFLOW_TRACKING_INSECURE_TLS=true" in said
    assert "does not answer" not in said
    (found,) = judge_mlflow(secure, remote=True)
    assert not found.ok
    assert "is not trusted" in found.detail


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE"])
def test_a_certificate_that_is_named_is_trusted_by_us_and_by_mlflow(
    secure, certificate, monkeypatch, name
):
    monkeypatch.setenv(name, str(certificate))
    assert tracking.connect() == "7"


def test_who_wants_no_certificate_looked_at_gets_that(secure, certificate, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
    store.check(secure)
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate))
    with pytest.raises(AccessError, match="are both set: unset one of them"):
        store.check(secure)


def test_a_file_that_is_no_certificate_is_named(secure, monkeypatch, tmp_path):
    (tmp_path / "text").write_text("nothing here")
    for name in ("MLFLOW_TRACKING_SERVER_CERT_PATH", "MLFLOW_TRACKING_CLIENT_CERT_PATH"):
        with monkeypatch.context() as some:
            some.setenv(name, str(tmp_path / "gone.pem"))
            with pytest.raises(AccessError, match=rf"{name}: .*gone.pem cannot be used \(No such"):
                store.check(secure)
            some.setenv(name, str(tmp_path / "text"))
            with pytest.raises(AccessError, match=r"text cannot be used \(it holds no certificate"):
                store.check(secure)


def test_a_folder_of_certificates_and_one_of_our_own_are_taken(certificate, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_CLIENT_CERT_PATH", str(certificate))
    assert certificates.context().verify_mode is ssl.CERT_REQUIRED
