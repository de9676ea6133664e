"""Fuzz what reads other people's files: ``python -m tests.fuzz --seconds 30 [TARGET ...]``.

Coverage-guided (atheris, from the extra dev, on Linux). Each target runs in a process of its own;
an input that breaks one is kept in ``fuzz-findings/TARGET/`` and the exit code is 1. The last line
is JSON: inputs tried and findings by target.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

FINDINGS = Path("fuzz-findings")


def main() -> int:
    """Fuzz every target in turn, or one in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", help="some of the targets; all where left out")
    parser.add_argument("--seconds", type=int, default=30, help="for each target")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        _fuzz(options.targets[0], options.seconds)
        return 0
    from tests.fuzz.targets import TARGETS

    told = {}
    for name in options.targets or TARGETS:
        command = [sys.executable, "-m", "tests.fuzz", "--one", name]
        done = subprocess.run(
            [*command, "--seconds", str(options.seconds)],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        executed = re.search(r"number_of_executed_units: (\d+)", done.stderr)
        found = sorted(str(path) for path in (FINDINGS / name).glob("*"))
        told[name] = {"inputs": int(executed[1]) if executed else 0, "findings": found}
        print(f"{name}: {told[name]['inputs']} inputs, {len(found)} findings", flush=True)
        if done.returncode:
            print(done.stdout[-3000:], done.stderr[-3000:], flush=True)
    print(json.dumps(told))
    return int(any(one["findings"] or not one["inputs"] for one in told.values()))


def _fuzz(name: str, seconds: int) -> None:
    """Fuzz one target; libFuzzer ends the process itself."""
    import atheris

    with atheris.instrument_imports(include=["dytrack_model", "dytrack_platform"]):
        from tests.fuzz import targets

        for seed in targets.seeds(name):  # imports what the target imports
            targets.run(targets.TARGETS[name], seed)
    corpus = Path(targets._PLACE) / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(targets.seeds(name)):
        (corpus / str(number)).write_bytes(seed)
    (FINDINGS / name).mkdir(parents=True, exist_ok=True)
    arguments = [
        sys.argv[0],
        str(corpus),
        f"-max_total_time={seconds}",
        f"-artifact_prefix={FINDINGS / name}/",
        "-print_final_stats=1",
        "-max_len=65536",
        "-timeout=20",
        "-rss_limit_mb=4096",
        "-verbosity=0",
    ]
    atheris.Setup(arguments, lambda data: targets.run(targets.TARGETS[name], data))
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
