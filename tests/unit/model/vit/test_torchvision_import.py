import subprocess
import sys

import pytest
import torch

from dytrack_model.vit import torchvision_import


@pytest.mark.slow
def test_timm_imports_after_the_fix_in_a_new_process():
    code = "from dytrack_model.vit import torchvision_import as t; t.apply(); import timm"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


LATER = """
import sys
import dytrack_model.vit.timm_vit
roi_align = sys.modules["torchvision.ops.roi_align"]

assert "torch._dynamo" not in sys.modules, "two seconds of every process that tracks"
assert isinstance(roi_align.is_compile_supported("cpu"), bool)
assert "torch._dynamo" in sys.modules
import torch._dynamo.config
import torch
assert torch.compile(lambda x: x + 1, backend="eager")(torch.zeros(1)).item() == 1
"""


@pytest.mark.slow
def test_the_compiler_is_imported_when_it_is_used():
    subprocess.run([sys.executable, "-W", "ignore", "-c", LATER], check=True)


USED_AT_ONCE = """
import sys
import torch
from dytrack_model.vit.torchvision_import import without_compiler

with without_compiler():
    {statement}
assert sys.modules["torch._dynamo"].optimize
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "statement",
    [
        "torch._dynamo.config",
        "import torch._dynamo.config",
        "from torch._dynamo import optimize",
        "from torch._dynamo.utils import counters",
        "assert torch.compiler.disable(lambda x: x + 1)(1) == 2",
        "assert torch.compiler.disable(recursive=False)(lambda x: x + 1)(1) == 2",
    ],
)
def test_whoever_needs_more_of_the_compiler_gets_all_of_it(statement):
    code = USED_AT_ONCE.format(statement=statement)
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


STUB = """
import sys, torch

SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
loaded, libraries = [], []

def load_library(path):
    # The loader runs a library's registrations once, whoever asks; a schema that is there already
    # would end the process.
    if path not in loaded:
        loaded.append(path)
        libraries.append(torch.library.Library("torchvision", "FRAGMENT"))
        libraries[-1].define("nms" + SCHEMA)
        libraries[-1].define("roi_align(Tensor input) -> Tensor")

torch.version.cuda = None
torch.ops.load_library = load_library
sys.path.insert(0, {folder!r})
from dytrack_model.vit import torchvision_import
assert "torchvision" not in sys.modules, "it is found, not imported"
torchvision_import.apply()
assert loaded == [{library!r}], loaded
assert torch.ops.torchvision.roi_align
# What the import does then: load the library, and register fakes for both operators.
import torchvision
"""


@pytest.mark.slow
def test_operators_that_torchvision_brings_are_loaded_before_any_is_defined(tmp_path):
    """torch and torchvision both built for the CPU: a stub stands for its library."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "_C.so").write_bytes(b"")
    (package / "_C.py").write_text("")
    (package / "__init__.py").write_text(
        "import torch\n"
        f"torch.ops.load_library({str(package / '_C.so')!r})\n"
        "for name in ('nms', 'qnms'):\n"
        "    torch.library.register_fake(f'torchvision::{name}')(lambda *_: None)\n"
    )
    code = STUB.format(folder=str(tmp_path), library=str(package / "_C.so"))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_library_that_does_not_load_leaves_the_schemas_to_us(tmp_path, monkeypatch):
    """torchvision built for CUDA beside a torch for the CPU."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("")
    (tmp_path / "torchvision" / "_C.so").write_bytes(b"no library")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    assert torchvision_import.load_own_operators() is False


def test_missing_schemas_are_defined_once_and_only_where_they_are_absent(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    torchvision_import.apply()
    assert torchvision_import.missing_operators() == ()
    for name in ("nms", "qnms"):
        schema = str(getattr(torch.ops.torchvision, name).default._schema)
        assert "Tensor dets, Tensor scores, float iou_threshold" in schema


def test_beside_a_cuda_torch_nothing_is_defined(monkeypatch):
    defined = []
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torchvision_import, "define_missing", defined.append)
    torchvision_import.apply()
    assert defined == []
