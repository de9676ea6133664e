"""Dockerfile, Compose, and the files of ``ray up`` and SkyPilot."""

import importlib.metadata
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.unit.cluster.manifests import FOLDER, documents, installed

TEXT = (FOLDER / "Dockerfile").read_text()
CODE = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE))
STAGES = {
    name: (base, body)
    for base, name, body in re.findall(
        r"^FROM (\S+) AS (\S+)\n(.*?)(?=^FROM |\Z)", CODE, re.MULTILINE | re.DOTALL
    )
}
COMPOSE = documents("compose.yaml")[0]
SERVICES = COMPOSE["services"]


BYTES = r"@sha256:[0-9a-f]{64}"


def test_the_base_is_pinned_to_bytes_and_the_only_one_from_outside():
    assert re.search(rf"^ARG PYTHON=python:3\.11[\w.\-]*{BYTES}$", CODE, re.MULTILINE)
    outside = {base for base, _ in STAGES.values()} - set(STAGES)
    assert outside == {"${PYTHON}"}


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_a_target_runs_as_nobody_special_and_has_no_compiler(target):
    base, body = STAGES[target]
    assert base == "base"
    assert f"COPY --from=build-{target} /opt/dytrack /opt/dytrack" in body
    common = STAGES["base"][1]
    assert "USER 1000:1000" in common
    assert "USER root" not in body
    assert "wget" in common, "the probes call it"
    assert "build-essential" not in CODE


@pytest.mark.parametrize("target", ["build-cpu", "build-cuda"])
def test_what_is_installed_is_what_is_tested(target):
    body = STAGES[target][1]
    assert f"torch=={importlib.metadata.version('torch').partition('+')[0]}" in body
    assert "--constraint constraints.txt" in body
    assert "[serve,server,export]" in body
    copied = STAGES["packages"][1]
    for name in ("dytrack_model", "platform", "pipelines", "pyproject.toml", "constraints.txt"):
        assert re.search(rf"^COPY .*\b{re.escape(name)}\b", copied, re.MULTILINE)
        assert f"!{name}" in (FOLDER.parent / ".dockerignore").read_text().splitlines()


def test_the_dockerfile_is_clean():
    hadolint = installed("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed (the extra test has it)")
    done = subprocess.run(
        [hadolint, FOLDER / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.fixture
def resolve_compose(tmp_path):
    """Return a function that resolves compose.yaml with variables, as ``compose config`` does."""
    if importlib.util.find_spec("podman_compose") is None:
        pytest.skip("podman-compose is not installed (the extra test has it)")
    podman = tmp_path / "podman"  # asked for its version, and for nothing else
    podman.write_text("#!/bin/sh\necho podman version 5.0.0\n")
    podman.chmod(0o755)

    def run(**variables):
        file = tmp_path / "env"
        file.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
        compose = [sys.executable, "-m", "podman_compose", "--podman-path", podman]
        return subprocess.run(
            [*compose, "-f", FOLDER / "compose.yaml", "--env-file", file, "config"],
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_compose_is_complete_and_has_the_specifications_keys_only(resolve_compose):
    specification = pytest.importorskip("compose_spec", reason="the extra test is not installed")
    variables = {
        "DYTRACK_IMAGE": "registry.example/dytrack:0.1.0-cpu",
        "POSTGRES_PASSWORD": "pass-word",
        "STORE_ACCESS_KEY": "key",
        "STORE_SECRET_KEY": "secret",
    }
    done = resolve_compose(**variables)
    assert done.returncode == 0, done.stderr
    assert "${" not in done.stdout
    resolved = yaml.safe_load(done.stdout)
    assert resolved["services"]["mlflow"]["image"] == variables["DYTRACK_IMAGE"]
    assert resolved["services"]["mlflow"]["environment"]["PGPASSWORD"] == "pass-word"
    specification.ComposeSpecification.model_validate(resolved)
    fields = specification.Service.model_fields
    known = {field.alias or name for name, field in fields.items()}
    for name, service in resolved["services"].items():
        assert set(service) <= known, name
        assert set(service.get("networks", ())) <= set(resolved["networks"]), name
        for volume in service.get("volumes", ()):
            source = volume["source"] if isinstance(volume, dict) else volume.partition(":")[0]
            assert source in resolved["volumes"], name


def test_compose_without_a_secret_says_which_and_where(resolve_compose):
    done = resolve_compose(DYTRACK_IMAGE="x", STORE_ACCESS_KEY="key", STORE_SECRET_KEY="secret")
    assert "POSTGRES_PASSWORD" in done.stderr
    assert "set it in cluster/.env" in done.stderr
    assert not done.stdout


def test_ports_are_on_loopback_and_the_database_has_none():
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name
    assert "ports" not in SERVICES["postgres"]
    assert SERVICES["postgres"]["networks"] == ["inside"]
    assert COMPOSE["networks"]["inside"] == {"internal": True}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_few_rights_and_a_pinned_image(name):
    service = SERVICES[name]
    assert service["user"].partition(":")[0] not in ("0", "root", "")
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    default = service["image"].partition(":-")[2].rstrip("}")
    if default:
        assert re.search(rf":\d+\.\d+[\w.\-]*{BYTES}$", default), default
    else:
        assert service["image"] == "${DYTRACK_IMAGE:?set it in cluster/.env}"


def test_every_secret_has_to_be_given_and_stands_in_no_command():
    text = (FOLDER / "compose.yaml").read_text()
    named = set(re.findall(r"\$\{(\w+):\?", text))
    assert named == {
        "DYTRACK_IMAGE",
        "POSTGRES_PASSWORD",
        "STORE_ACCESS_KEY",
        "STORE_SECRET_KEY",
    }
    example = (FOLDER / "compose.env.example").read_text()
    assert set(re.findall(r"^(\w+)=", example, re.MULTILINE)) == named
    assert not re.search(r"^\w*(PASSWORD|SECRET)\w*=.", example, re.MULTILINE)
    ignored = (FOLDER.parent / ".gitignore").read_text().splitlines()
    assert "/cluster/.env" in ignored
    for service in SERVICES.values():
        assert not re.search(r"PASSWORD|SECRET", " ".join(service.get("command", [])))


def test_the_server_asks_who_one_is_and_takes_these_options(dytrack):
    words = SERVICES["mlflow"]["command"]
    assert words[:3] == ["dytrack", "mlflow", "up"]
    assert "--auth" in words
    said = re.sub(r"\x1b\[[0-9;]*m", "", dytrack("mlflow", "up", "--help").stdout)
    for word in words[3:]:
        assert word.partition("=")[0] in said
    assert SERVICES["mlflow"]["depends_on"]["postgres"] == {"condition": "service_healthy"}
    compile(SERVICES["bucket"]["command"][2], "bucket", "exec")


@pytest.mark.parametrize("name", ["ray-up.yaml", "ray-up-aws.yaml"])
def test_a_file_for_ray_up_fits_rays_schema_and_brings_the_token(name):
    import jsonschema

    (config,) = documents(name)
    found = importlib.util.find_spec("ray")
    assert found is not None
    schema = Path(found.origin or "").parent / "autoscaler" / "ray-schema.json"
    # Numbers of machines of your own stand at the top, where Ray itself reads them away.
    own = {k: v for k, v in config.items() if k != "min_workers"}
    jsonschema.validate(own, json.loads(schema.read_text()))
    assert config["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    for kind in ("head", "worker"):
        stop, start = config[f"{kind}_start_ray_commands"]
        assert stop == "ray stop"
        assert start.startswith("RAY_AUTH_MODE=token ")
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][1]
    options = config["docker"]["run_options"]
    assert any(option.startswith("--shm-size=") for option in options)


def test_the_file_for_a_cloud_takes_spot_machines_that_keep_their_identity():
    (config,) = documents("ray-up-aws.yaml")
    types = config["available_node_types"]
    assert types["gpu-spot"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert types["head"]["resources"] == {"CPU": 0}
    for kind in types.values():
        assert kind["node_config"]["MetadataOptions"] == {"HttpTokens": "required"}


def test_the_file_for_skypilot_is_short_and_leaves_its_ray_alone():
    text = (FOLDER / "skypilot.yaml").read_text()
    assert "never run by us" in text.splitlines()[0]
    assert len(text.splitlines()) <= 20
    (config,) = documents("skypilot.yaml")
    assert set(config["secrets"].values()) == {None}
    assert not re.search(r"port=6380|:6380", config["run"])
    done = subprocess.run(["sh", "-n"], input=config["run"], text=True, check=False)
    assert done.returncode == 0
    train = [line for line in config["run"].splitlines() if "dytrack train" in line]
    assert "train.storage=s3://BUCKET/runs" in shlex.split(train[0])


def test_the_folders_page_names_every_file():
    page = (FOLDER / "README.md").read_text()
    for path in FOLDER.iterdir():
        if path.name not in ("README.md", ".env"):
            assert f"`{path.name}`" in page, path.name
