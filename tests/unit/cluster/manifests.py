"""Read the manifests of cluster/ for the tests."""

import shutil
import sys
from pathlib import Path

import yaml

FOLDER = Path(__file__).resolve().parents[3] / "cluster"
MANIFESTS = ("raycluster.yaml", "rayjob.yaml", "raycronjob.yaml", "rayservice.yaml")


def documents(name):
    return [part for part in yaml.safe_load_all((FOLDER / name).read_text()) if part]


def resource(name):
    """Return the one object of ray.io of a file."""
    (found,) = [part for part in documents(name) if part["apiVersion"].startswith("ray.io/")]
    return found


def job_spec(name):
    """Return the RayJobSpec of a file, also where a schedule holds it; None where there is none."""
    found = resource(name)
    if found["kind"] == "RayCronJob":
        return found["spec"]["jobTemplate"]
    return found["spec"] if found["kind"] == "RayJob" else None


def cluster_spec(name):
    """Return the RayClusterSpec of a file."""
    spec = job_spec(name) or resource(name)["spec"]
    return spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec


def pods(name):
    """Return (who, PodSpec) of every pod that a file makes."""
    spec = cluster_spec(name)
    found = [("head", spec["headGroupSpec"]["template"]["spec"])]
    found += [(g["groupName"], g["template"]["spec"]) for g in spec["workerGroupSpecs"]]
    job = job_spec(name)
    if job is not None:
        found.append(("submitter", job["submitterPodTemplate"]["spec"]))
    return found


def installed(name):
    """Return a program beside this Python or on the path; None where there is none."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)
