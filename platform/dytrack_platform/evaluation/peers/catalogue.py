"""The trackers that people use today on a CPU, and the files that they need."""

import difflib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dytrack_platform.errors import ConfigurationError, DataError
from dytrack_platform.evaluation.peers import runner
from dytrack_platform.evaluation.peers.process import Entry

TRAINED_ON = (
    "NanoTrack was trained on the full public data sets and ours was not: the comparison is of "
    "what one can use, not of how it was made."
)
"""Stands beside every comparison."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """A tracker that is not ours."""

    kind: str
    """As the runner knows it."""
    files: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """File names by the name of the parameter that takes them; the first that is there is taken."""
    contrib: bool = False
    """Whether only an OpenCV with contrib modules has it."""


_VIT_BEFORE_RELEASE = "vitTracker.onnx"

PEERS: dict[str, Peer] = {
    "nano-v2": Peer(
        kind="Nano",
        files={
            "backbone": ("nanotrackv2_backbone_sim.onnx",),
            "neckhead": ("nanotrackv2_head_sim.onnx",),
        },
    ),
    "nano-v3": Peer(
        kind="Nano3",
        files={"backbone": ("nanotrackv3_backbone.onnx",), "head": ("nanotrackv3_head.onnx",)},
    ),
    "nano-v1": Peer(
        kind="Nano",
        files={
            "backbone": ("nanotrackv1_backbone_sim.onnx",),
            "neckhead": ("nanotrackv1_head_sim.onnx",),
        },
    ),
    "vit": Peer(
        kind="Vit",
        files={"net": ("object_tracking_vittrack_2023sep.onnx", _VIT_BEFORE_RELEASE)},
    ),
    "csrt": Peer(kind="CSRT", contrib=True),
    "kcf": Peer(kind="KCF", contrib=True),
    "mil": Peer(kind="MIL"),
}
"""By the name on the command line; the first that runs is what the others' speed is measured by."""


def peer_entries(
    names: Sequence[str] = (),
    folder: Path | None = None,
    contrib_python: Path | None = None,
    *,
    threads: int = 1,
    memory_bytes: int = 0,
) -> list[Entry]:
    """Find trackers.

    Args:
        names: Of :data:`PEERS`; empty for all of them.
        folder: Holds the networks' files, at any depth.
        contrib_python: An interpreter whose OpenCV has contrib modules.
        threads: Of each.
        memory_bytes: Limit of each process's address space; 0 for none.

    Returns:
        One each; those whose files are not there have no command, and say what was looked for.

    Raises:
        ConfigurationError: A name is unknown, or there is no such interpreter.
        DataError: The folder is missing, or holds none of the files.
    """
    for name in names:
        if name not in PEERS:
            close = difflib.get_close_matches(name, PEERS, n=1)
            meant = f"; did you mean {close[0]}?" if close else ""
            raise ConfigurationError(
                f"--peer: must be one of {', '.join(PEERS)}, got {name!r}{meant}"
            )
    if contrib_python is not None and not contrib_python.is_file():
        raise ConfigurationError(f"--contrib-python: {contrib_python}: no such interpreter")
    wanted = [name for name in PEERS if name in names] if names else list(PEERS)
    found = _files_in(folder, wanted)
    entries = []
    for name in wanted:
        peer = PEERS[name]
        files, missing = {}, []
        for parameter, candidates in peer.files.items():
            there = next((found[file] for file in candidates if file in found), None)
            if there is None:
                missing.append(" or ".join(candidates))
            else:
                files[parameter] = str(there)
        job = {"kind": peer.kind, "files": files, "threads": threads, "memory": memory_bytes}
        python = str(contrib_python) if peer.contrib and contrib_python else sys.executable
        where = f"in {folder}" if folder else "; give their folder with --peers"
        before = any(Path(file).name == _VIT_BEFORE_RELEASE for file in files.values())
        entries.append(
            Entry(
                name=name,
                # Isolated: neither this program's folders nor the user's are on its path.
                command=() if missing else (python, "-I", runner.__file__, json.dumps(job)),
                looked_for=f"{' and '.join(missing)} {where}".replace(" ;", ";"),
                hint="; give a Python that has opencv-contrib-python-headless with --contrib-python"
                if peer.contrib
                else "",
                title=f"{name} (pre-release)" if before else "",
            )
        )
    return entries


def _files_in(folder: Path | None, names: Sequence[str]) -> dict[str, Path]:
    """List the files that the trackers need, by name."""
    if folder is None:
        return {}
    if not folder.is_dir():
        raise DataError(f"--peers: {folder}: no such folder")
    needed = {file for name in names for files in PEERS[name].files.values() for file in files}
    found = {path.name: path.absolute() for path in sorted(folder.rglob("*.onnx"))}
    known = {name: path for name, path in found.items() if name in needed}
    if needed and not known:
        raise DataError(
            f"--peers: {folder}: holds none of the files that were looked for: "
            f"{', '.join(sorted(needed))}"
        )
    return known
