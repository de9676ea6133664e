import shutil

from dytrack_platform.config import DataConfig, SourceConfig
from dytrack_platform.datasets.prepared.fingerprint import changes, fingerprint


def described(*folders):
    return fingerprint(DataConfig(train=tuple(SourceConfig(path=str(f)) for f in folders)))


def test_the_same_folder_has_the_same_fingerprint(made_clips):
    before, now = described(made_clips), described(made_clips)
    assert changes(before, now) == []
    assert before[str(made_clips)]["sequences"] == 10


def test_a_changed_index_and_a_new_folder_are_told_with_numbers(made_clips, tmp_path):
    before = described(made_clips)
    copied = tmp_path / "copied"
    shutil.copytree(made_clips, copied)
    (said,) = changes(before, described(made_clips, copied))
    assert said.startswith(f"{copied} had no part in it and has ")
    assert "clips of 10 sequences" in said
    other = {str(made_clips): {**before[str(made_clips)], "digest": "other"}}
    (said,) = changes(before, other)
    assert said.endswith("(other ones)")
