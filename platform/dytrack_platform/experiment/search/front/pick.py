"""A member of a search's front as a tracker that can be published or tracked with."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from dytrack_platform.experiment.runs import tracking  # sets MLflow's environment first

import mlflow  # isort: skip
from mlflow.exceptions import MlflowException

from dytrack_model import checkpoint
from dytrack_model.policy import OperatingPoint
from dytrack_platform.errors import ModelLookupError
from dytrack_platform.experiment.search.front import rebuild
from dytrack_platform.experiment.search.front.members import (
    WEIGHTS,
    Member,
    point_of,
    trial_name,
)
from dytrack_platform.storage import files

POINT = "balanced"
"""Name of the picked policy among the tracker's operating points: what trackers start at."""


@contextmanager
def picked(reference: str, pick: str | None = None) -> Iterator[Path]:
    """Yield a folder with a member's weights and policy as a tracker; it goes afterwards.

    Args:
        reference: The search's run in MLflow, or its folder.
        pick: ``ms<=8, max auc``; the knee point if None.

    Raises:
        ConfigurationError: ``pick`` cannot be read.
        ModelLookupError: There is no such search or member, or its weights are gone.
    """
    member = rebuild.pick_member(reference, pick)
    others, details = rebuild.load_front(reference)
    saved = _saved(reference, member, details["members"][member.name]["trial"])
    chosen = point_of(member)
    picked = OperatingPoint(name=POINT, thresholds=chosen.thresholds, value=chosen.value)
    # Other members with these weights are further operating points of the same tracker.
    same = [point_of(m) for m in others if m.weights == member.weights and m.name != member.name]
    full = (float("inf"),) * (saved.network.exit_count - 1)
    points = [picked, *same, OperatingPoint(name="accurate", thresholds=full)]
    notes = {**saved.notes, "search": reference, "member": member.to_dict()}
    with TemporaryDirectory(prefix="dytrack-") as name:
        yield checkpoint.save(Path(name) / "tracker", saved.network, points, notes)


def _saved(reference: str, member: Member, trial: int | None) -> checkpoint.SavedTracker:
    """Read a member's weights: where the search left them, else from MLflow."""
    if member.weights is not None and files.exists(member.weights):
        with files.local_copy(member.weights) as folder:
            return checkpoint.load(folder)
    client, run_id = mlflow.MlflowClient(), rebuild.run_of(reference)
    with TemporaryDirectory(prefix="dytrack-") as name:
        try:
            place = (run_id, f"{WEIGHTS}/{member.name}")
            if trial is not None:
                # A front that came earlier may have had a member of this name from another trial.
                above = client.get_run(run_id).info.experiment_id
                called = f"AND tags.`mlflow.runName` = '{trial_name(trial)}'"
                (child,) = tracking.children(client, run_id, above, called)
                place = (child.info.run_id, member.name)
            found = mlflow.artifacts.download_artifacts(
                run_id=place[0], artifact_path=place[1], dst_path=name
            )
            return checkpoint.load(found)
        except (MlflowException, OSError, ValueError) as error:
            raise ModelLookupError(
                f"{reference}: the weights of member {member.name} are neither at "
                f"{member.weights} nor in the store {tracking.shown()}"
            ) from error
