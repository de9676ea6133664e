"""The README's commands and names exist."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from dytrack_pipelines.cli import app
from dytrack_platform.datasets import readers

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text() + (ROOT / "cluster" / "README.md").read_text()


def test_every_command_and_option_exists():
    commands = typer.main.get_command(app).commands
    pages = TEXT + "".join(page.read_text() for page in ROOT.glob("docs/*.md"))
    blocks = "\n".join(re.findall(r"^```\w*\n(.*?)^```", pages, re.DOTALL | re.MULTILINE))
    found = re.findall(r"^dytrack (.+)$", re.sub(r"\\\n *", "", blocks), re.MULTILINE)
    assert len(found) >= 6
    for line in found:
        name, *words = shlex.split(line, comments=True)
        command = commands[name]
        while hasattr(command, "commands"):  # a group: the next word is its command
            command = command.commands[words.pop(0)]
        options = {
            flag
            for p in command.params
            for flag in (*getattr(p, "opts", ()), *getattr(p, "secondary_opts", ()))
        }
        if name == "submit":  # the rest belongs to the command that runs there
            continue
        assert {word for word in words if word.startswith("--")} <= options, line


def test_every_command_is_named():
    missing = [
        name for name in typer.main.get_command(app).commands if f"dytrack {name}" not in TEXT
    ]
    assert [name for name in missing if name not in ("demo", "trax", "data")] == []


def test_the_datasets_are_those_that_can_be_read():
    row = next(line for line in TEXT.splitlines() if line.startswith("| `dytrack prepare`"))
    assert set(re.findall(r"`([a-z0-9]+)`", row)) == set(readers.READERS)


@pytest.mark.parametrize(
    "page",
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "CHANGELOG.md",
        *ROOT.glob("docs/**/*.md"),
    ],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_every_link_leads_to_a_file(page):
    for link in re.findall(r"\]\(([^)#\s]+)\)", page.read_text()):
        assert link.startswith("http") or (page.parent / link).exists(), link


def test_the_example_runs(made, tmp_path, monkeypatch, capsys):
    import torch

    from dytrack_model import RGB, checkpoint
    from dytrack_model.config import variant
    from dytrack_model.network import DyTrackNetwork
    from dytrack_model.policy import OperatingPoint
    from dytrack_pipelines.media.video import VideoWriter

    point = OperatingPoint(name="balanced", thresholds=(0.5, 0.5))
    torch.manual_seed(0)
    checkpoint.save(tmp_path / "demo/runs/demo/tracker", DyTrackNetwork(variant("test")), [point])
    frames = sorted(next((made / "test").glob("test_*")).glob("*.jpg"))
    for number in (1, 2):
        (tmp_path / f"frame{number}.jpg").write_bytes(frames[number - 1].read_bytes())
    with VideoWriter(tmp_path / "video.mp4", 25.0) as video:
        for frame in frames[:3]:
            video.write(RGB.open(frame).pixels)
    code = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL).group(1)
    monkeypatch.chdir(tmp_path)
    exec(code.replace("(120, 80, 64, 48)", "(40, 40, 30, 30)"), {})
    assert len(capsys.readouterr().out.splitlines()) == 3
