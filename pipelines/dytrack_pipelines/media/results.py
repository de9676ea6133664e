"""Files of boxes, written as the frames come: CSV, JSON lines, MOT, LaSOT, CVAT, COCO-video, YOLO.

Every writer works beside its file's place and takes that place when the body of the ``with`` ends,
however it ends: minutes of tracking are not lost to what came after them.
"""

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from xml.sax.saxutils import quoteattr

from dytrack_pipelines.media.box_file import BoxFile
from dytrack_pipelines.media.overlay import Mark
from dytrack_pipelines.media.yolo import YoloFolder
from dytrack_platform.errors import StorageError
from dytrack_platform.storage.outputs import MADE_BY

COLUMNS = ("frame", "x", "y", "w", "h", "exit", "predicted_iou", "lost", "state")


class CsvFile(BoxFile):
    """One row for each frame and target, with exit, predicted IoU and state."""

    def begin(self) -> None:
        """Write the header; targets are named where there are several."""
        self._several = len(self.targets) > 1
        self._writer = csv.writer(self.part())
        self._writer.writerow((*COLUMNS, "target") if self._several else COLUMNS)

    def add(self, marks: Mapping[str, Mark]) -> None:
        """Write a row for each target."""
        for name, mark in marks.items():
            box = [f"{value:.4f}" for value in mark.box_xywh]
            score = f"{mark.predicted_iou:.4f}"
            row = [self.frames, *box, mark.depth, score, int(mark.lost), mark.state]
            self._writer.writerow([*row, name] if self._several else row)


class JsonLinesFile(BoxFile):
    """One JSON object for each frame; the first line says what the file is."""

    def begin(self) -> None:
        """Write the first line."""
        self._file = self.part()
        width, height = self.size
        about = {"generator": MADE_BY, "source": self.source, "width": width, "height": height}
        self._file.write(json.dumps(about | {"targets": self.targets}) + "\n")

    def add(self, marks: Mapping[str, Mark]) -> None:
        """Write one line."""
        rows = {
            name: {
                "box": [round(float(value), 4) for value in mark.box_xywh],
                "predicted_iou": round(mark.predicted_iou, 4),
                "state": str(mark.state),
                "exit": mark.depth,
            }
            for name, mark in marks.items()
        }
        self._file.write(json.dumps({"frame": self.frames, "targets": rows}) + "\n")


class MotFile(BoxFile):
    """MOTChallenge: ``frame,id,x,y,w,h,confidence,-1,-1,-1`` from 1 on; lost ones are left out."""

    def begin(self) -> None:
        """Open the file."""
        self._file = self.part()

    def add(self, marks: Mapping[str, Mark]) -> None:
        """Write a row for each target that is there."""
        for name, mark in marks.items():
            if not mark.lost:
                box = ",".join(f"{value:.2f}" for value in mark.box_xywh)
                number = self.targets.index(name) + 1
                score = f"{mark.predicted_iou:.4f}"
                self._file.write(f"{self.frames + 1},{number},{box},{score},-1,-1,-1\n")


class LasotFile(BoxFile):
    """LaSOT: ``x,y,w,h`` for each frame; a file for each target where there are several."""

    def begin(self) -> None:
        """Open a file for each target."""
        self._files = {name: self.part(name) for name in self.targets}

    def add(self, marks: Mapping[str, Mark]) -> None:
        """Write a row for each target."""
        for name, mark in marks.items():
            self._files[name].write(",".join(f"{value:.4f}" for value in mark.box_xywh) + "\n")

    def finish(self) -> None:
        """Name the files; with several targets each one's name is added."""
        for name, path in self.places(self.path, self.targets).items():
            self._place(name, path)

    @staticmethod
    def places(path: Path, targets: Sequence[str]) -> dict[str, Path]:
        """Return the file of each target."""
        if len(targets) == 1:
            return {targets[0]: path}
        return {name: path.with_name(f"{path.stem}-{name}{path.suffix}") for name in targets}


class CvatFile(BoxFile):
    """CVAT for video 1.1: a track for each target; ``outside`` where it is lost."""

    def begin(self) -> None:
        """Open a part for each track, which XML wants in one piece."""
        self._parts = {name: self.part(name) for name in self.targets}

    def add(self, marks: Mapping[str, Mark]) -> None:
        """Write a box for each target."""
        for name, mark in marks.items():
            x, y, w, h = (float(value) for value in mark.box_xywh)
            self._parts[name].write(
                f'    <box frame="{self.frames}" xtl="{x:.2f}" ytl="{y:.2f}" xbr="{x + w:.2f}" '
                f'ybr="{y + h:.2f}" outside="{int(mark.lost)}" occluded="0" '
                f'keyframe="{int(self.frames == 0)}" z_order="0"></box>\n'
            )

    def finish(self) -> None:
        """Join the tracks."""
        whole = self.part()
        width, height = self.size
        whole.write(
            '<?xml version="1.0" encoding="utf-8"?>\n'
            f'<!-- "generator": "{MADE_BY}" -->\n<annotations>\n  <version>1.1</version>\n'
            f"  <meta><task><size>{self.frames}</size><mode>interpolation</mode>"
            f"<start_frame>0</start_frame><stop_frame>{max(self.frames - 1, 0)}</stop_frame>"
            "<labels><label><name>target</name><attributes></attributes></label></labels>"
            f"<original_size><width>{width}</width><height>{height}</height></original_size>"
            "</task></meta>\n"
        )
        for number, name in enumerate(self.targets):
            file = self._open[name][1]
            file.seek(0)
            source = quoteattr(name)
            whole.write(f'  <track id="{number}" label="target" source={source}>\n')
            for line in file:
                whole.write(line)
            whole.write("  </track>\n")
            self._drop(name)
        whole.write("</annotations>\n")
        self._place("", self.path)


class CocoFile(BoxFile):
    """COCO for video: images, and annotations with ``track_id``; lost ones left out."""

    def begin(self) -> None:
        """Open a part for the images and one for the annotations."""
        self._images, self._part = self.part("images"), self.part("annotations")
        self._count = 0

    def add(self, marks: Mapping[str, Mark]) -> None:
        """Write the image, and an annotation for each target that is there."""
        width, height = self.frame_size
        file_name = self.names[self.frames] if self.names else f"{self.frames:08d}.jpg"
        row: dict[str, object] = {"id": self.frames + 1, "video_id": 1, "frame_id": self.frames}
        row |= {"width": width, "height": height, "file_name": file_name}
        self._images.write(("," if self.frames else "") + "\n  " + json.dumps(row))
        for name, mark in marks.items():
            if mark.lost:
                continue
            self._count += 1
            box = [round(float(value), 2) for value in mark.box_xywh]
            row = {
                "id": self._count,
                "image_id": self.frames + 1,
                "category_id": 1,
                "bbox": box,
            }
            row |= {"area": round(box[2] * box[3], 2), "iscrowd": 0, "video_id": 1}
            row |= {"track_id": self.targets.index(name) + 1}
            row |= {"score": round(mark.predicted_iou, 4), "exit": mark.depth}
            self._part.write(("," if self._count > 1 else "") + "\n  " + json.dumps(row))

    def finish(self) -> None:
        """Join images and annotations."""
        whole = self.part()
        width, height = self.size
        video = {"id": 1, "name": self.source, "width": width, "height": height}
        info = {"generator": MADE_BY, "description": f"targets {', '.join(self.targets)}"}
        whole.write(f'{{"info": {json.dumps(info)},\n "videos": [{json.dumps(video)}],\n')
        whole.write(' "categories": [{"id": 1, "name": "target"}],\n "images": [')
        self._move("images", whole)
        whole.write('],\n "annotations": [')
        self._move("annotations", whole)
        whole.write("]}\n")
        self._place("", self.path)

    def _move(self, name: str, whole: IO[str]) -> None:
        file = self._open[name][1]
        file.seek(0)
        shutil.copyfileobj(file, whole)
        self._drop(name)


FORMATS: dict[str, type[BoxFile]] = {
    "--csv": CsvFile,
    "--jsonl": JsonLinesFile,
    "--mot": MotFile,
    "--lasot": LasotFile,
    "--cvat": CvatFile,
    "--coco": CocoFile,
    "--yolo": YoloFolder,
}
"""What writes the file of each option."""


class BoxFiles:
    """All files of boxes that were asked for.

    Args:
        paths: By option; None where a format was not asked for.
        targets: Names of the targets.
        size: Width and height of the frames.
        source: What is tracked in.
        names: File names of the frames, where each is a file of its own.

    Raises:
        StorageError: A folder cannot be written; nothing is left in any of them.
    """

    def __init__(
        self,
        paths: Mapping[str, Path | None],
        targets: Sequence[str],
        size: tuple[int, int],
        source: str,
        names: Sequence[str] = (),
    ) -> None:
        self._files: list[BoxFile] = []
        try:
            for option, path in paths.items():
                if path is not None:
                    self._files.append(FORMATS[option](path, targets, size, source, names))
        except BaseException:
            for file in self._files:
                file.discard()
            raise

    def write(self, marks: Mapping[str, Mark], size: tuple[int, int]) -> None:
        """Add the boxes of the next frame, which has that width and height, to every file."""
        for file in self._files:
            file.write(marks, size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A full disk takes several files: each is named.
        told = [str(error)] if isinstance(error, StorageError) else []
        for file in self._files:
            try:
                file.close()
            except StorageError as fault:
                told.append(str(fault))
        if told and (error is None or isinstance(error, StorageError)):
            raise StorageError("; ".join(dict.fromkeys(told))) from error
