"""A command run as the console script would run it."""

import sys
from typing import NamedTuple

import pytest
import torch

from dytrack_pipelines import cli

# Small tensors gain nothing from threads, and lose much where other work shares the cores.
torch.set_num_threads(1)


class Ended(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def dytrack(monkeypatch, capsys):
    """Run a command in this process, as the console script would."""
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["dytrack", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return Ended(int(ended.value.code or 0), *capsys.readouterr())

    return run
