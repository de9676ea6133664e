"""What every manifest for Kubernetes has to hold: a table of rules, each checked on each file."""

import importlib.metadata
import os
import re
import shlex
from pathlib import Path

import pytest
import yaml

from dytrack_pipelines import recipes
from tests.unit.cluster.manifests import (
    FOLDER,
    MANIFESTS,
    cluster_spec,
    documents,
    job_spec,
    pods,
    resource,
)

_SECRET = re.compile(r"SECRET|TOKEN|PASSWORD|ACCESS_KEY")
_BYTES = {"Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def size(text):
    return float(text[:-2]) * _BYTES[text[-2:]]


def the_pinned_ray(name):
    assert cluster_spec(name)["rayVersion"] == importlib.metadata.version("ray")


def token_authentication(name):
    assert cluster_spec(name)["authOptions"] == {"mode": "token"}


def autoscaler_v2_where_there_is_one(name):
    spec = cluster_spec(name)
    # A cluster that is made for a job has the size of the job.
    assert spec.get("enableInTreeAutoscaling", False) == (job_spec(name) is None)
    if spec.get("enableInTreeAutoscaling"):
        options = spec["autoscalerOptions"]
        assert options["version"] == "v2"
        assert options["idleTimeoutSeconds"] >= 60
        assert set(options["resources"]["limits"]) == {"cpu", "memory"}
        # A pod that is started again would be another node of Ray under the same name.
        assert {pod["restartPolicy"] for _, pod in pods(name)} == {"Never"}


def nothing_but_what_is_needed_passes(name):
    policy = cluster_spec(name)["networkPolicy"]
    assert policy["mode"] == "DenyAll"
    for side in ("head", "worker"):
        rules = policy[side]["egressRules"]
        assert all(rule.get("to") and rule.get("ports") for rule in rules), "no rule is for all"
        dns = [r for r in rules if {p["port"] for p in r["ports"]} == {53}]
        assert {port["protocol"] for port in dns[0]["ports"]} == {"UDP", "TCP"}, side
        (mlflow,) = [r for r in rules if [p["port"] for p in r["ports"]] == [5000]]
        assert mlflow["to"] == [{"podSelector": {"matchLabels": {"app": "mlflow"}}}]
        for rule in rules:
            for place in rule["to"]:
                block = place.get("ipBlock")
                if block and block["cidr"] == "0.0.0.0/0":
                    assert block["except"] == ["169.254.0.0/16"], "the machine's own identity"
                    assert [port["port"] for port in rule["ports"]] == [443]
        for rule in policy[side].get("ingressRules", []):
            assert rule["from"]
            assert rule["ports"]
    # The autoscaler is a client of the API server; nobody else is.
    api = [r for r in policy["head"]["egressRules"] if r["ports"][0]["port"] == 6443]
    assert bool(api) == bool(cluster_spec(name).get("enableInTreeAutoscaling"))
    (operator,) = [
        rule for rule in policy["head"]["ingressRules"] if rule["ports"][0]["port"] == 8265
    ]
    assert operator["from"][0]["podSelector"]["matchLabels"] == {
        "app.kubernetes.io/name": "kuberay-operator"
    }
    served = [r for r in policy["worker"].get("ingressRules", []) if r["ports"][0]["port"] == 8000]
    assert bool(served) == (resource(name)["kind"] == "RayService")


def every_container_has_limits_and_few_rights(name):
    for who, pod in pods(name):
        (container,) = pod["containers"]
        assert {"cpu", "memory"} <= set(container["resources"]["limits"]), who
        assert size(container["resources"]["requests"]["memory"]) <= size(
            container["resources"]["limits"]["memory"]
        )
        rights = container["securityContext"]
        assert rights["runAsNonRoot"] is True
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["capabilities"] == {"drop": ["ALL"]}
        assert rights["seccompProfile"] == {"type": "RuntimeDefault"}


def only_the_autoscaler_may_use_the_api(name):
    scales = bool(cluster_spec(name).get("enableInTreeAutoscaling"))
    for who, pod in pods(name):
        assert pod.get("automountServiceAccountToken", True) == (who == "head" and scales), who


def shared_memory_lies_on_a_volume_and_fits_the_limit(name):
    for who, pod in pods(name):
        (container,) = pod["containers"]
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert set(mounts.values()) == set(volumes), who
        shm = volumes[mounts["/dev/shm"]]["emptyDir"]
        assert shm["medium"] == "Memory"
        # What lies there counts as the container's memory.
        assert size(shm["sizeLimit"]) <= size(container["resources"]["limits"]["memory"])


def rays_own_pods_have_probes_and_time_to_end(name):
    for who, pod in pods(name):
        if who == "submitter":
            continue
        (container,) = pod["containers"]
        for probe in ("readinessProbe", "livenessProbe"):
            said = " ".join(container[probe]["exec"]["command"])
            assert "/api/local_raylet_healthz" in said
            assert ("/api/gcs_healthz" in said) == (who == "head")
            assert container[probe]["timeoutSeconds"] > 4 * said.count("-T 4") - 4
        assert pod["terminationGracePeriodSeconds"] >= 20, "a training writes a checkpoint"


def the_head_trains_nothing(name):
    assert cluster_spec(name)["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def secrets_come_by_name(name):
    for who, pod in pods(name):
        for container in pod["containers"]:
            for variable in container.get("env", []):
                plain = "value" in variable and _SECRET.search(variable["name"])
                assert not plain, f"{who}: {variable['name']}"
                assert "@" not in str(variable.get("value", ""))
    named = [
        source["secretRef"]["name"]
        for who, pod in pods(name)
        if who != "submitter"
        for source in pod["containers"][0]["envFrom"]
    ]
    assert named.count("dytrack-secrets") == len(pods(name)) - (job_spec(name) is not None)


def images_are_ours_and_of_this_version(name):
    version = importlib.metadata.version("dytrack")
    for who, pod in pods(name):
        image = pod["containers"][0]["image"]
        assert re.fullmatch(rf"REGISTRY/dytrack:{re.escape(version)}-(cpu|cuda)", image), who


def gpus_are_asked_for_where_the_image_has_cuda(name):
    for group in cluster_spec(name)["workerGroupSpecs"]:
        (container,) = group["template"]["spec"]["containers"]
        has = "nvidia.com/gpu" in container["resources"]["limits"]
        assert has == container["image"].endswith("-cuda")
        tolerated = {t["key"] for t in group["template"]["spec"].get("tolerations", [])}
        assert has == ("nvidia.com/gpu" in tolerated)
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


RULES = (
    the_pinned_ray,
    token_authentication,
    autoscaler_v2_where_there_is_one,
    nothing_but_what_is_needed_passes,
    every_container_has_limits_and_few_rights,
    only_the_autoscaler_may_use_the_api,
    shared_memory_lies_on_a_volume_and_fits_the_limit,
    rays_own_pods_have_probes_and_time_to_end,
    the_head_trains_nothing,
    secrets_come_by_name,
    images_are_ours_and_of_this_version,
    gpus_are_asked_for_where_the_image_has_cuda,
)


@pytest.mark.parametrize("name", MANIFESTS)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_manifest_holds(rule, name):
    rule(name)


def test_no_manifest_is_forgotten():
    named = {
        path.name
        for path in FOLDER.glob("*.yaml")
        if any(str(part.get("apiVersion")).startswith("ray.io/") for part in documents(path.name))
    }
    assert named == set(MANIFESTS)


@pytest.mark.parametrize("name", ["rayjob.yaml", "raycronjob.yaml"])
def test_a_job_is_tried_again_and_leaves_no_cluster(name):
    spec = job_spec(name)
    assert spec["submissionMode"] == "K8sJobMode"
    assert spec["backoffLimit"] >= 1
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] > 0
    assert spec["activeDeadlineSeconds"] > 0


def test_every_try_of_a_training_is_the_same_run():
    words = shlex.split(job_spec("rayjob.yaml")["entrypoint"])
    command, recipe, *rest = words[1:]
    assert command == "train"
    assert recipe in recipes.shipped()
    changes = dict(word.split("=", 1) for word in rest if word != "--set")
    assert changes["name"] == "base-full"
    assert changes["train.storage"].startswith("/storage/")
    pods_of_workers = cluster_spec("rayjob.yaml")["workerGroupSpecs"][0]["replicas"]
    assert int(changes["train.workers"]) == pods_of_workers
    assert int(changes["train.min_workers"]) < pods_of_workers


def test_the_nightly_job_measures_the_champion_in_a_folder_of_the_day():
    found = resource("raycronjob.yaml")["spec"]
    assert re.fullmatch(r"\d+ \d+ \* \* \*", found["schedule"])
    assert found["timeZone"]
    shell, flag, line = shlex.split(found["jobTemplate"]["entrypoint"])
    assert (shell, flag) == ("sh", "-c")
    words = line.split()
    assert words[:2] == ["dytrack", "evaluate"]
    assert words[words.index("--model") + 1] == "models:/dytrack@champion"
    assert "$(date -u +%F)" in line


def test_spot_workers_are_preferred_and_each_cloud_is_known():
    groups = {g["groupName"]: g for g in cluster_spec("raycluster.yaml")["workerGroupSpecs"]}
    spot = groups["gpu-spot"]
    assert spot["priority"] > groups["gpu"].get("priority", 0)
    assert spot["minReplicas"] == 0
    pod = spot["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] <= 25, "some clouds give no more"
    terms = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    keys = {term["matchExpressions"][0]["key"] for term in terms["nodeSelectorTerms"]}
    assert len(keys) == 4


def test_what_the_service_builds_is_there_and_takes_its_arguments():
    pytest.importorskip("starlette", reason="the extra serve is not installed")
    config = yaml.safe_load(resource("rayservice.yaml")["spec"]["serveConfigV2"])
    (application,) = config["applications"]
    assert application["import_path"] == "dytrack_platform.experiment.serve.application:build"
    source = FOLDER.parent / "platform/dytrack_platform/experiment/serve/application.py"
    assert re.search(r"^def build\(", source.read_text(), re.MULTILINE)
    port = config["http_options"]["port"]
    worker = pods("rayservice.yaml")[1][1]["containers"][0]
    assert [one["containerPort"] for one in worker["ports"]] == [port]
    assert f"localhost:{port}/-/healthz" in " ".join(worker["readinessProbe"]["exec"]["command"])
    cpus = float(worker["resources"]["limits"]["cpu"])
    group = cluster_spec("rayservice.yaml")["workerGroupSpecs"][0]
    args = application["args"]
    assert args["replicas"] * args["threads"] <= cpus * group["replicas"]


SCHEMAS = "DYTRACK_KUBERAY_SCHEMAS"


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_fits_the_operators_own_schema(name):
    folder = os.environ.get(SCHEMAS)
    if not folder:
        pytest.skip(
            f"{SCHEMAS} names no folder with KubeRay's files config/crd/bases/ray.io_*.yaml"
        )
    import jsonschema

    found = resource(name)
    path = Path(folder) / f"ray.io_{found['kind'].lower()}s.yaml"
    versions = yaml.safe_load(path.read_text())["spec"]["versions"]
    (schema,) = [v["schema"]["openAPIV3Schema"] for v in versions if v["name"] == "v1"]
    jsonschema.validate(found, strict(schema))


def strict(schema):
    """Refuse unknown keys, which the API server would drop without a word."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    if isinstance(made.get("properties"), dict) and made.get("type") == "object":
        keeps = made.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in made
        if not keeps and set(made["properties"]) != set():
            made["additionalProperties"] = False
    return made
