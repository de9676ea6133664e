from dataclasses import replace

import numpy as np

from dytrack_platform.datasets.prepared.clips import FrameCache, cut_clips, plan_clips
from dytrack_platform.datasets.prepared.windows import ClipConfig

CONFIG = ClipConfig(frames=4, span=20, search_size=64)


def test_frames_of_a_clip_are_spread_over_an_equal_part_of_the_sequence(moving):
    clips = plan_clips(moving(frames=50), CONFIG)
    assert [clip.tolist() for clip in clips] == [
        [0, 4, 8, 12],
        [16, 20, 24, 28],
        [33, 37, 41, 45],
    ]


def test_a_short_sequence_gives_all_of_its_frames(moving):
    assert [clip.tolist() for clip in plan_clips(moving(frames=3), CONFIG)] == [[0, 1, 2]]
    assert [clip.tolist() for clip in plan_clips(moving(frames=1), CONFIG)] == [[0]]


def test_a_part_without_the_target_gives_no_clip(moving):
    sequence = moving(frames=40)
    sequence.visible[:20] = False
    assert [clip.tolist() for clip in plan_clips(sequence, CONFIG)] == [[20, 25, 30, 35]]


def test_an_absent_frame_is_kept_with_the_window_of_where_the_target_was(moving):
    sequence = moving(frames=4)
    sequence.visible[2] = False
    sequence.boxes_xywh[2] = np.nan
    (clip,) = cut_clips(sequence, CONFIG, FrameCache(), [])
    assert clip.visible == [True, True, False, True]
    scales = [window.scale for window in clip.windows]
    assert clip.windows[2].box_xywh[2:] == clip.windows[1].box_xywh[2:]
    assert len(set(scales)) == 1


def test_a_frame_that_does_not_decode_is_left_out_and_reported(moving, faults):
    sequence = moving(frames=8)
    sequence.frames.broken = {2}
    (clip,) = cut_clips(sequence, CONFIG, FrameCache(), faults)
    assert clip.frames == [0, 4, 6]
    assert [(f.sequence, f.frame) for f in faults] == [("a", 2)]


def test_a_clip_that_loses_all_visible_frames_is_left_out(moving, faults):
    sequence = moving(frames=8)
    sequence.frames.broken = set(range(8))
    assert list(cut_clips(sequence, CONFIG, FrameCache(), faults)) == []
    assert [f.frame for f in faults] == [0, 2, 4, 6]


def test_a_box_outside_of_its_frame_is_reported(moving, faults):
    sequence = moving(frames=4)
    boxes = sequence.boxes_xywh.copy()
    boxes[1, 0] = 10_000
    (clip,) = cut_clips(replace(sequence, boxes_xywh=boxes), CONFIG, FrameCache(), faults)
    assert clip.frames == [0, 2, 3]
    assert "lies outside of its image" in faults[0].reason


def test_a_image_that_is_asked_for_again_is_decoded_once(moving):
    sequence, images = moving(frames=2), FrameCache()
    assert images.read(sequence.frames, 1) is images.read(sequence.frames, 1)
