"""The files of cluster/ are well-formed and agree with the versions that are installed."""

from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).resolve().parents[2] / "cluster"
pytestmark = pytest.mark.cluster


def documents(name):
    return [part for part in yaml.safe_load_all((FOLDER / name).read_text()) if part]


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml"])
def test_kubernetes_files_name_the_pinned_ray(name):
    import ray

    found = [d for d in documents(name) if d["apiVersion"] == "ray.io/v1"]
    assert len(found) == 1
    spec = found[0]["spec"].get("rayClusterSpec", found[0]["spec"])
    assert spec["rayVersion"] == ray.__version__
    assert spec["authOptions"] == {"mode": "token"}
    for group in spec["workerGroupSpecs"]:
        container = group["template"]["spec"]["containers"][0]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert "storage" in mounted
        assert mounted <= {volume["name"] for volume in group["template"]["spec"]["volumes"]}


def test_the_file_for_ray_up_passes_rays_own_check():
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = documents("ray-up.yaml")[0]
    validate_config(prepare_config(config))
