"""A file of weights that ends anywhere is refused in a sentence, whatever wrote it."""

import pytest
import torch
from safetensors.torch import save_file

from dytrack_model.errors import CheckpointError
from dytrack_model.pretrained.files import read_tensors

TENSORS = {"patch_embed.proj.weight": torch.zeros(4, 3, 2, 2), "pos_embed": torch.ones(1, 5, 4)}


def _files(folder):
    save_file(TENSORS, folder / "w.safetensors")
    torch.save({"net": TENSORS, "epoch": 3}, folder / "w.pth")
    torch.save({"net": TENSORS}, folder / "old.pth", _use_new_zipfile_serialization=False)
    return sorted(folder.iterdir())


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "old.pth"])
def test_every_prefix_of_a_file_is_refused(tmp_path, name):
    _files(tmp_path)
    content = (tmp_path / name).read_bytes()
    cut = tmp_path / "cut"
    lengths = {*range(min(300, len(content))), *range(300, len(content), 37), len(content) - 1}
    for length in sorted(lengths):
        cut.write_bytes(content[:length])
        with pytest.raises(CheckpointError) as refused:
            read_tensors(cut)
        assert str(cut) in str(refused.value)
        assert "weights_only" not in str(refused.value)
    cut.write_bytes(content)
    assert set(read_tensors(cut)) == set(TENSORS)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_a_flipped_byte_is_refused_or_changes_a_number_only(tmp_path, name):
    _files(tmp_path)
    content = bytearray((tmp_path / name).read_bytes())
    changed = tmp_path / "changed"
    for place in range(0, len(content), 53):
        content[place] ^= 0xFF
        changed.write_bytes(content)
        content[place] ^= 0xFF
        try:
            found = read_tensors(changed)
        except CheckpointError as error:
            assert str(changed) in str(error)  # noqa: PT017
        else:
            assert all(torch.isfinite(value).all() for value in found.values())
