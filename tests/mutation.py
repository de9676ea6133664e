"""Mutation testing of a few modules: ``python -m tests.mutation MODULE [--most N] [--seed S]``.

Changes one operator, comparison or number of a module at a time and runs the tests that belong to
it; a change that no test notices survives and is printed with its line. Minutes for a module; the
file itself is never touched: the changed one lies in a folder that is put before it on the path.
"""

import argparse
import ast
import copy
import importlib.util
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import cv2  # noqa: F401  (imported once, before the forks)
import pytest
import torch  # noqa: F401

ROOT = Path(__file__).resolve().parents[1]
TESTS = {
    "dytrack_model/boxes.py": ["tests/unit/model/test_boxes_and_crops.py"],
    "dytrack_model/crops.py": ["tests/unit/model/test_boxes_and_crops.py"],
    "dytrack_model/policy.py": ["tests/unit/model/test_policy.py"],
    "dytrack_model/thresholds.py": ["tests/unit/model/test_thresholds.py"],
    "platform/dytrack_platform/datasets/loading/pairs.py": [
        "tests/unit/platform/datasets/loading/test_pairs.py"
    ],
    "platform/dytrack_platform/evaluation/scoring/metrics.py": [
        "tests/unit/platform/evaluation/scoring"
    ],
}
_LONGEST_S = 120
"""Of processor time: on a busy machine a clock would take every change for one that never ends."""
_ASLEEP_S = 1800
"""By the clock, for a change after which the tests wait for ever."""
_MODEL_TOO = "tests/unit/model/test_properties.py"
_COMPARE = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
            ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is}  # fmt: skip
_ARITHMETIC = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
               ast.FloorDiv: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr}  # fmt: skip


def _swapped(node: ast.AST) -> str | None:
    """Change a node in place; say what was changed, or None where there is nothing to change."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARE:
        before = node.ops[0]
        node.ops[0] = _COMPARE[type(before)]()
        return f"{type(before).__name__} to {type(node.ops[0]).__name__}"
    if isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in _ARITHMETIC:
        before = node.op
        node.op = _ARITHMETIC[type(before)]()
        return f"{type(before).__name__} to {type(node.op).__name__}"
    if isinstance(node, ast.BoolOp):
        before = node.op
        node.op = ast.Or() if isinstance(before, ast.And) else ast.And()
        return f"{type(before).__name__} to {type(node.op).__name__}"
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        before, node.value = node.value, node.value + 1
        return f"{before} to {node.value}"
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        node.value = not node.value
        return f"to {node.value}"
    return None


def mutants(source: str) -> list[tuple[int, str, str]]:
    """Return line, change, and text of every changed module; annotations are left alone."""
    tree = ast.parse(source)
    told = {id(n) for one in ast.walk(tree) for n in _annotations(one)}
    positions = [k for k, node in enumerate(ast.walk(tree)) if id(node) not in told]
    found = []
    for position in positions:
        changed = copy.deepcopy(tree)
        node = next(n for k, n in enumerate(ast.walk(changed)) if k == position)
        line, what = getattr(node, "lineno", 0), _swapped(node)
        if what is not None:
            found.append((line, what, ast.unparse(changed)))
    return found


def _annotations(node: ast.AST) -> list[ast.AST]:
    given = [getattr(node, name, None) for name in ("annotation", "returns")]
    return [inner for one in given if isinstance(one, ast.AST) for inner in ast.walk(one)]


def _passes(first: str, tests: list[str]) -> bool:
    """Run tests in a fork of this process, which has what is slow to import; ours it has not."""
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_CPU, (_LONGEST_S, _LONGEST_S))
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        os.chdir(ROOT)
        sys.dont_write_bytecode = True
        sys.path[:0] = [first, str(ROOT), str(ROOT / "platform"), str(ROOT / "pipelines")]
        name = "dytrack_model" if Path(first, "dytrack_model").exists() else "dytrack_platform"
        found = importlib.util.find_spec(name)
        assert found is not None
        assert str(found.origin).startswith(first), "the changed package is the one that is tested"
        options = ["-x", "-q", "-p", "no:cacheprovider", "-o", "pythonpath="]
        os._exit(pytest.main([*options, "-m", "not slow and not ray", *tests]))
    began = time.monotonic()
    while time.monotonic() - began < _ASLEEP_S:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0  # a loop without an end was killed
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def main() -> int:
    """Mutate, test, and list what survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("module", choices=TESTS)
    parser.add_argument("--most", type=int, default=60, help="drawn at random where there are more")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    every = mutants((ROOT / given.module).read_text())
    chosen = every
    if len(every) > given.most:
        chosen = sorted(random.Random(given.seed).sample(every, given.most))
    package = Path(given.module).parts[0]
    tests = TESTS[given.module] + ([_MODEL_TOO] if package == "dytrack_model" else [])
    survived = []
    with tempfile.TemporaryDirectory() as place:
        copied = Path(place) / package
        shutil.copytree(ROOT / package, copied, ignore=shutil.ignore_patterns("__pycache__"))
        first = place if package == "dytrack_model" else str(copied)
        target = Path(place) / given.module
        for line, what, text in [(0, "nothing", target.read_text()), *chosen]:
            target.write_text(text)
            passed = _passes(first, tests)
            if what == "nothing" and not passed:
                raise SystemExit("the tests fail without any change")
            if passed and what != "nothing":
                survived.append((line, what))
                print(f"survived: line {line}: {what}", flush=True)
    print(f"{given.module}: {len(chosen)} of {len(every)} changes, {len(survived)} survived")
    return 0


if __name__ == "__main__":
    sys.exit(main())
