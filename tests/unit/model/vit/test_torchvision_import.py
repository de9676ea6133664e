import subprocess
import sys

import pytest
import torch

from dytrack_model.vit import torchvision_import


@pytest.mark.slow
def test_timm_imports_after_the_fix_in_a_new_process():
    code = "from dytrack_model.vit import torchvision_import as t; t.apply(); import timm"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


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
