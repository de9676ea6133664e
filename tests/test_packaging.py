"""What pyproject.toml asks of an environment, and what constraints.txt pins."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DECLARED = [
    Requirement(line) for lines in (PROJECT["dependencies"], *EXTRAS.values()) for line in lines
]
PINNED = {
    canonicalize_name(name): Version(version)
    for name, _, version in (
        line.partition("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
}


def requirements():
    return [pytest.param(r, id=str(r)) for r in DECLARED if r.name != PROJECT["name"]]


@pytest.mark.parametrize("requirement", requirements())
def test_a_declared_range_admits_the_pinned_version(requirement):
    pinned = PINNED[canonicalize_name(requirement.name)]
    assert pinned in requirement.specifier


@pytest.mark.parametrize("requirement", requirements())
def test_exact_versions_stand_in_the_constraints_only(requirement):
    operators = {specifier.operator for specifier in requirement.specifier}
    assert not operators & {"==", "==="}, "another project's environment cannot meet it"


def test_torch_may_be_as_old_as_2_6_and_torchvision_is_left_to_timm():
    ranges = {r.name: r.specifier for r in DECLARED}
    assert "2.6.0" in ranges["torch"]
    assert "torchvision" not in ranges


def test_the_extras_are_those_that_the_documentation_names():
    assert set(EXTRAS) == {"serve", "server", "export", "dev", "test", "all", "third-party"}
    assert Requirement(EXTRAS["all"][0]).extras == {"serve", "export", "dev"}
