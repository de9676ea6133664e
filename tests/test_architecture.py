"""Rules of the repository that no linter states."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = [
    ROOT / "dytrack_model",
    ROOT / "platform/dytrack_platform",
    ROOT / "pipelines/dytrack_pipelines",
]
MOST_FILES = 24  # the model; the commands are eighteen, most rooms have fewer than twelve
MODULES = sorted(path for package in PACKAGES for path in package.rglob("*.py"))


def test_folders_of_tests_mirror_the_rooms():
    mirrored = {"model": PACKAGES[0], "platform": PACKAGES[1], "pipelines": PACKAGES[2]}
    for name, package in mirrored.items():
        tests = ROOT / "tests/unit" / name
        rooms = [path.relative_to(tests) for path in tests.rglob("*") if path.is_dir()]
        astray = [str(room) for room in rooms if "__pycache__" not in room.parts]
        astray = [room for room in astray if not (package / room / "__init__.py").is_file()]
        assert not astray, f"{name}: {astray} test rooms that the package does not have"


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.name)
def test_a_room_holds_what_one_can_overlook(package):
    for folder in (package, *(path for path in package.rglob("*") if path.is_dir())):
        count = len([path for path in folder.glob("*.py") if path.name != "__init__.py"])
        assert count <= MOST_FILES, f"{folder}: {count} files; cut it by subject"


def test_standard_platform_is_not_hidden():
    code = "import platform; assert platform.system() and not hasattr(platform, '__path__')"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_module_fits_on_a_few_screens(path):
    assert len(path.read_text().splitlines()) <= 400, "split it, or say here why it must be long"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_is_unpickled_and_no_shell_is_called(path):
    text = path.read_text()
    assert not re.search(r"pickle\.loads?\(|allow_pickle=True|shell=True|os\.system\(", text)
    for call in re.findall(r"torch\.load\([^)]*\)", text):
        assert "weights_only=True" in call


def tensor_functions():
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            public = isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
            if public and "Tensor" in ast.unparse(node.args):
                yield pytest.param(node, id=f"{path.name}:{node.name}")


@pytest.mark.parametrize("node", list(tensor_functions()))
def test_public_tensor_function_states_its_shapes(node):
    assert re.search(
        r"\([A-Z0-9][A-Za-z0-9]*(, ?[A-Za-z0-9*+ ]+)+,?\)|\([A-Z],\)|\(\*\)",
        ast.get_docstring(node) or "",
    )
