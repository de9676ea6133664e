"""What is released installs elsewhere, runs from an empty directory, and has one version."""

import csv
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_there_is_one_version():
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited[1] == VERSION
    assert not [
        str(path)
        for folder in ("dytrack_model", "platform", "pipelines")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"^__version__ *=", path.read_text(), re.MULTILINE)
    ]


def _run(*command, **options):
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.mark.slow
def test_the_wheel_tracks_from_an_empty_directory(tmp_path):
    pytest.importorskip("hatchling", reason="builds without a network: hatchling must be here")
    dist = tmp_path / "dist"
    _run(sys.executable, "-m", "hatchling", "build", "-d", dist, cwd=ROOT)
    wheel, source = next(dist.glob("*.whl")), next(dist.glob("*.tar.gz"))
    assert VERSION in wheel.name
    assert VERSION in source.name
    held = zipfile.ZipFile(wheel).namelist()
    for needed in ("dytrack_model/reference/model.safetensors", "dytrack_pipelines/cli.py"):
        assert needed in held
    assert any(name.endswith("recipes/demo.yaml") for name in held)
    with tarfile.open(source) as archive:
        assert any(name.endswith("pyproject.toml") for name in archive.getnames())

    # A new environment that sees what dytrack needs, but not dytrack as it is developed.
    place = tmp_path / "venv"
    venv.create(place, with_pip=True)
    packages = next((place / "lib").glob("python*/site-packages"))
    # Appended as a line, not as a site folder: the .pth of an editable install is not followed.
    here = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (packages / "needed.pth").write_text("".join(f"{path}\n" for path in here))
    python = place / "bin" / "python"
    _run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel)
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    away = tmp_path / "away"
    away.mkdir()
    where = _run(
        python, "-c", "import dytrack_pipelines as p; print(p.__file__)", cwd=away, env=environment
    )
    assert str(packages) in where

    dytrack = place / "bin" / "dytrack"
    assert "track" in _run(dytrack, "--help", cwd=away, env=environment)
    assert _run(dytrack, "--version", cwd=away, env=environment).strip() == f"dytrack {VERSION}"
    made = ("--set", "frames=[10,10]", "--set", "width=160", "--set", "height=120")
    synth = ("data", "synth", "--out", "made", "--split", "test", "--sequences", "1")
    _run(dytrack, *synth, *made, cwd=away, env=environment)
    folder = away / "made/test/test_000001"
    box = (folder / "groundtruth.txt").read_text().splitlines()[0]
    out = ("--csv", "boxes.csv", "--out", "out.mp4")
    _run(dytrack, "track", folder, "--init", box, *out, cwd=away, env=environment)
    rows = list(csv.DictReader((away / "boxes.csv").read_text().splitlines()))
    assert len(rows) == 10
    assert (away / "out.mp4").stat().st_size > 1000
