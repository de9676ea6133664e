"""What pyproject.toml asks of an environment, and what constraints.txt pins."""

import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
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


OLDEST = "3.11.2"
"""The Python of Debian 12."""


def test_what_is_pinned_installs_on_the_oldest_python_that_is_promised():
    """A package that left it behind is not seen by pip at all: nothing could be installed."""
    found, newer = 0, []
    for name, pinned in PINNED.items():
        try:
            described = metadata(name)
        except PackageNotFoundError:  # of an extra that is not installed here
            continue
        if Version(described["Version"]) != pinned:
            continue
        found += 1
        wanted = described.get("Requires-Python") or ""
        if OLDEST not in SpecifierSet(wanted):
            newer.append(f"{name} {pinned} needs Python {wanted}")
    assert not newer
    assert found > 50


def test_torch_may_be_as_old_as_2_6_and_torchvision_is_left_to_timm():
    ranges = {r.name: r.specifier for r in DECLARED}
    assert "2.6.0" in ranges["torch"]
    assert "torchvision" not in ranges


NAMED = {"serve", "server", "export", "dev", "test", "docs", "interop", "all", "third-party"}


def test_the_extras_are_those_that_the_documentation_names():
    assert set(EXTRAS) == NAMED
    assert Requirement(EXTRAS["all"][0]).extras == {"serve", "export", "dev"}
