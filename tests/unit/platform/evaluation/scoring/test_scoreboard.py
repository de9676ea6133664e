import numpy as np
import pytest

from dytrack_platform.errors import ResultError
from dytrack_platform.evaluation.scoring.annotations import read_annotations
from dytrack_platform.evaluation.scoring.profiles import PROFILES, profile
from dytrack_platform.evaluation.scoring.result_files import format_boxes
from dytrack_platform.evaluation.scoring.scoreboard import find_trackers, score_results

BOXES = np.tile([10.0, 20.0, 30.0, 40.0], (6, 1))


def write(path, boxes=BOXES):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(format_boxes(boxes))


@pytest.fixture
def benchmark(tmp_path):
    for name in ("car-1", "dog-2"):
        write(tmp_path / "anno" / f"{name}.txt")
    return tmp_path


def scored(folder, name="lasot-matlab", **options):
    annotations = read_annotations(folder / "anno", **options)
    return score_results(profile(name), annotations, find_trackers(folder / "results"))


def test_one_tracker_with_an_error_does_not_stop_the_others(benchmark):
    for name in ("car-1", "dog-2"):
        write(benchmark / "results" / "good" / f"{name}.txt")
        write(benchmark / "results" / "short" / f"{name}.txt", BOXES[:3])
    board = scored(benchmark)
    assert list(board.trackers) == ["good"]
    assert board.errors["short"].startswith("car-1: 3 results for 6 annotated frames")


def test_a_missing_sequence_is_refused_or_scored_as_zero_boxes(benchmark):
    write(benchmark / "results" / "half" / "car-1.txt")
    assert "no result of dog-2" in scored(benchmark).errors["half"]
    board = scored(benchmark, "trackingnet")
    assert "half, dog-2: no result, scored as all-zero boxes" in board.unusual
    assert board.trackers["half"].coverage == pytest.approx(7 / 12)


def test_an_extra_file_is_listed_and_not_scored(benchmark):
    for name in ("car-1", "dog-2", "zebra-9"):
        write(benchmark / "results" / "more" / f"{name}.txt")
    board = scored(benchmark)
    assert "more: not of this benchmark and not scored: zebra-9" in board.unusual
    assert set(board.trackers["more"].sequences) == {"car-1", "dog-2"}


def test_a_name_in_another_spelling_is_taken_and_listed(benchmark):
    for name in ("Car_1", "dog-2"):
        write(benchmark / "results" / "loose" / f"{name}.txt")
    board = scored(benchmark)
    assert not board.errors
    assert "loose, car-1: taken from the file called Car_1" in board.unusual


def test_a_file_of_another_dataset_is_refused_by_its_length(benchmark):
    write(benchmark / "results" / "alien" / "car-1.txt", BOXES[:2])
    write(benchmark / "results" / "alien" / "dog-2.txt")
    assert "car-1: 2 results for 6" in scored(benchmark, "pysot-lasot").errors["alien"]


def test_a_file_of_another_sequence_is_told_by_its_first_box(benchmark):
    for name, shift in (("car-1", 400.0), ("dog-2", 0.0)):
        write(benchmark / "results" / "alien" / f"{name}.txt", BOXES + np.array([shift, 0, 0, 0]))
    notes = scored(benchmark, "ostrack-otb").unusual
    assert len(notes) == 1
    assert notes[0].startswith("alien, car-1: the box of frame 1 overlaps the annotation by 0.00")
    assert notes[0].endswith("is this a file of another sequence or dataset?")


def test_several_processes_come_to_the_same_as_one(benchmark):
    for name in ("car-1", "dog-2"):
        write(benchmark / "results" / "good" / f"{name}.txt", BOXES + 1.5)
        write(benchmark / "results" / "short" / f"{name}.txt", BOXES[:3])
    write(benchmark / "results" / "good" / "zebra-9.txt")
    annotations = read_annotations(benchmark / "anno")
    trackers = find_trackers(benchmark / "results")
    one, two = (
        score_results(profile("lasot-matlab"), annotations, trackers, workers=workers)
        for workers in (1, 2)
    )
    assert two.to_dict() == one.to_dict()
    assert list(two.trackers) == ["good"]
    assert two.errors["short"].startswith("car-1: 3 results")


def test_mixed_delimiters_are_read_and_told(benchmark):
    lines = ["10,20,30,40", "10\t20\t30\t40", "10 20 30 40", "10; 20; 30; 40"]
    path = benchmark / "results" / "mixed" / "car-1.txt"
    write(benchmark / "results" / "mixed" / "dog-2.txt")
    path.write_text("\r\n".join([*lines, *lines[:2]]))
    board = scored(benchmark, "pysot-otb")
    assert board.unusual == [
        "mixed, car-1: car-1.txt mixes commas and tabs and semicolons and spaces"
    ]
    assert board.trackers["mixed"].overall.success_auc == pytest.approx(20 / 21)


@pytest.mark.parametrize("rules", list(PROFILES))
@pytest.mark.parametrize("fault", ["shorter", "longer", "nan", "negative", "missing", "extra"])
def test_a_bad_result_gives_a_note_or_a_named_error_by_every_profile(benchmark, rules, fault):
    boxes = BOXES.copy()
    if fault == "nan":
        boxes[3] = np.nan
    if fault == "negative":
        boxes[3, 2] = -4
    folder = benchmark / "results" / "bad"
    write(
        folder / "car-1.txt",
        {"shorter": boxes[:4], "longer": np.vstack([boxes] * 2)}.get(fault, boxes),
    )
    if fault != "missing":
        write(folder / "dog-2.txt")
    if fault == "extra":
        write(folder / "zebra-9.txt")
    board = scored(benchmark, rules)
    lines = [*board.errors.values(), *board.unusual]
    subject = {"missing": "dog-2", "extra": "zebra-9"}.get(fault, "car-1")
    assert any(subject in line for line in lines), lines
    assert bool(board.errors) != bool(board.trackers)


def test_files_of_a_single_tracker_may_lie_in_the_folder_itself(benchmark):
    for name in ("car-1", "dog-2"):
        write(benchmark / "results" / f"{name}.txt")
    assert list(scored(benchmark).trackers) == ["results"]


def test_got10ks_tree_with_repetitions_and_times_is_read(tmp_path):
    folder = tmp_path / "val" / "GOT_000001"
    write(folder / "groundtruth.txt")
    (folder / "cover.label").write_text("8\n" * 5 + "0\n")
    (folder / "meta_info.ini").write_text("[METAINFO]\nobject_class: dog\nresolution: (64, 48)\n")
    (tmp_path / "val" / "list.txt").write_text("GOT_000001\n")
    tracker = tmp_path / "results" / "us" / "GOT_000001"
    for k in (1, 2):
        write(tracker / f"GOT_000001_{k:03d}.txt")
    (tracker / "GOT_000001_time.txt").write_text("0.1,0.1\n" * 6)
    annotations = read_annotations(tmp_path / "val")
    assert annotations[0].image_size == (64, 48)
    board = score_results(profile("got10k"), annotations, find_trackers(tmp_path / "results"))
    score = board.trackers["us"]
    assert score.sequences["GOT_000001"].frames == 2 * 4
    assert score.fps == pytest.approx(10)
    assert score.mao == pytest.approx(1.0)


def test_lasots_and_otbs_own_trees_are_read(tmp_path):
    folder = tmp_path / "lasot" / "car" / "car-1"
    write(folder / "groundtruth.txt")
    (folder / "full_occlusion.txt").write_text("0,1,0,0,0,0")
    (folder / "out_of_view.txt").write_text("0,0,1,0,0,0")
    found = read_annotations(tmp_path / "lasot")[0]
    assert found.name == "car-1"
    assert found.absent.tolist() == [False, True, True, False, False, False]
    for target in (".1", ".2"):
        write(tmp_path / "otb" / "Jogging" / f"groundtruth_rect{target}.txt")
    (tmp_path / "otb" / "Human4").mkdir()
    (tmp_path / "otb" / "Human4" / "groundtruth_rect.1.txt").write_text("")
    write(tmp_path / "otb" / "Human4" / "groundtruth_rect.2.txt")
    names = [annotation.name for annotation in read_annotations(tmp_path / "otb")]
    assert names == ["Human4.2", "Jogging.1", "Jogging.2"]


def test_attributes_come_from_rows_or_a_table(benchmark):
    rows = benchmark / "att"
    rows.mkdir()
    for name in ("car-1", "dog-2"):
        (rows / f"{name}.txt").write_text("1,0,0,0,0,0,0,0,0,0,0,0,0,1\n")
    found = read_annotations(benchmark / "anno", attributes=rows)
    assert found[0].attributes == ("IV", "ARC")
    (benchmark / "table.json").write_text('{"columns": ["A"], "sequences": {"dog-2": [1]}}')
    found = read_annotations(benchmark / "anno", attributes=benchmark / "table.json")
    assert [a.attributes for a in found] == [(), ("A",)]
    with pytest.raises(ResultError, match=r"car-1\.txt: attributes are one row of 0 and 1"):
        read_annotations(benchmark / "anno", attributes=benchmark / "anno")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"exclude": ["cat-3"]}, "--exclude cat-3: .* has no sequence of that name"),
        ({"exclude": ["car-1", "dog-2"]}, "no annotations; expected SEQ.txt"),
    ],
)
def test_a_wrong_exclusion_is_refused(benchmark, arguments, message):
    with pytest.raises(ResultError, match=message):
        read_annotations(benchmark / "anno", **arguments)


def test_missing_folders_are_refused(tmp_path):
    with pytest.raises(ResultError, match="no such folder of annotations"):
        read_annotations(tmp_path / "none")
    with pytest.raises(ResultError, match="no such folder of results"):
        find_trackers(tmp_path / "none")
    with pytest.raises(ResultError, match=r"no results; expected TRACKER/SEQ\.txt"):
        find_trackers(tmp_path)
