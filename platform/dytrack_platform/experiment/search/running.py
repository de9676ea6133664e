"""A search under way: its trials or its tracker, its judgement, and what is kept and logged."""

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dytrack_platform.experiment.cluster import preflight, session  # sets Ray's environment first

import torch  # isort: skip

from dytrack_model import checkpoint
from dytrack_model.config import ModelConfig
from dytrack_platform.config import ExperimentConfig, resolve, to_dict
from dytrack_platform.errors import TrainingError
from dytrack_platform.experiment.runs import pareto
from dytrack_platform.experiment.runs.journal import Journal
from dytrack_platform.experiment.search import space as spaces
from dytrack_platform.experiment.search.front import members, page, rebuild
from dytrack_platform.experiment.search.front.members import Front
from dytrack_platform.experiment.search.judging import Entry, Judge
from dytrack_platform.experiment.search.points import threshold_front as solving
from dytrack_platform.experiment.search.points.latency import (
    Latency,
    full_depth,
    measured,
    planned_costs,
)
from dytrack_platform.experiment.search.points.rerun import Videos
from dytrack_platform.experiment.search.request import Request, Say, Searched, Show, Standing
from dytrack_platform.experiment.search.trials import supernet
from dytrack_platform.experiment.search.trials.full import Watching, run_listed, run_trials
from dytrack_platform.experiment.search.trials.record import SearchRecord, TrialRecord
from dytrack_platform.experiment.search.trials.trial import (
    EPOCH,
    METRIC,
    TRACKER,
    Job,
    has_tracker,
    tidy,
)
from dytrack_platform.storage import files


class Running:
    """One search under way: what its parts share."""

    def __init__(
        self,
        request: Request,
        config: ExperimentConfig,
        record: SearchRecord,
        log: Journal,
        show: Show,
        say: Say,
        folder: Path,
    ) -> None:
        self._request, self._config, self._record = request, config, record
        self._log, self._show, self._say, self._folder = log, show, say, folder
        self._began, self._fresh = time.monotonic(), 0
        self._reference: tuple[float, ...] = ()

    def run(self, model: Path | None) -> Searched:
        """Do what the mode says, judge, and keep the front."""
        mode = self._request.mode
        if mode == "post-hoc":
            assert model is not None  # the request was checked
            front = self._post_hoc(model)
        else:
            with session.ray_session(dashboard=self._config.train.workers > 1):
                # Trials that no node has room for would wait without end.
                preflight.require_room_for_trial(self._config, self._say)
                preflight.require_shared(self._config, self._request.location)
                self._reference = self._stated(self._config.model)
                entries, promised = self._full() if mode == "full" else self._supernet()
            front = self._judge().front(mode, entries, promised)
        return self._keep(front)

    def _post_hoc(self, model: Path) -> Front:
        config = self._config.model  # the tracker's own
        chosen = spaces.placements(self._config, config.exits)
        self._reference = self._stated(config)
        entry = Entry(weights=str(model.absolute()), placements=tuple(chosen), changes={})
        self._say(f"{len(chosen)} placements among the exits {list(config.exits)}")
        return self._judge().front("post-hoc", [entry])

    def _full(self) -> tuple[list[Entry], list[solving.Point]]:
        """Run the trials; return the trackers that they left, and the points of all."""
        timed = self._timed if self._needs_ms() else lambda changes: None
        run_trials(self._config, self._job(), self._record, self._watching(), timed)
        return self._entries(self._record.trials), self._record.union()

    def _supernet(self) -> tuple[list[Entry], list[solving.Point]]:
        """Train the supernet, score what inherits from it, and train the best ones on.

        Returns:
            The trackers, and the points of all placements.
        """
        config, record, job = self._config, self._record, self._job()
        changes = supernet.training(config)
        run_listed(config, job, record, self._watching(), [changes])
        whole = record.trials[0]
        if whole.status != "finished":
            raise TrainingError(
                f"the supernet's training failed: {whole.reason}; the same command trains it again"
            )
        with files.local_copy(f"{job.folder(0)}/{TRACKER}") as folder:
            network = checkpoint.load(folder).network
        _, chosen = supernet.candidates(config)
        device = torch.device("cuda" if config.train.gpu else "cpu")
        inherited = supernet.score(config, network, chosen, self._reference, device)
        self._log.file(
            "inherited.json",
            json.dumps(
                [{"exits": one.exits, METRIC: one.hypervolume} for one in inherited]
            ).encode(),
        )
        best = supernet.best(inherited, config, self._reference)
        worth = supernet.worth(inherited, config, self._reference)
        entries = [
            Entry(
                weights=supernet.keep(network, one.exits, self._request.location),
                placements=(one.exits,),
                changes={spaces.EXITS: list(one.exits)},
                points=one.points,
            )
            for one in inherited
            if one.exits in {*best, *worth}
        ]
        tuned = [
            {
                **entry.changes,
                "train.init_from": entry.weights,
                "train.epochs": config.search.finetune_epochs,
            }
            for entry in entries
            if entry.placements[0] in best
        ]
        self._say(f"{len(inherited)} placements inherit; training on {len(tuned)}: {best}")
        if tuned:
            run_listed(config, job, record, self._watching(), [changes, *tuned])
        entries += self._entries(record.trials[1:], beside=True)
        promised = [point for one in inherited for point in one.points]
        kept = [point for point in promised if solving.keeps(point.values, config.search)]
        return entries, kept + [point for trial in record.trials[1:] for point in trial.kept_points]

    def _entries(self, trials: list[TrialRecord], *, beside: bool = False) -> list[Entry]:
        """Return the trackers that trials left; ``beside`` others there may be none."""
        found, job = [], self._job()
        for trial in trials:
            weights = f"{job.folder(trial.number)}/{TRACKER}"
            if trial.status == "running":
                continue
            # A kill may have come between its end and this.
            tidy(job, trial.number, stopped=trial.status == "stopped")
            # Weights that an earlier front did not need were removed.
            if trial.kept_points and has_tracker(job, trial.number):
                exits = resolve(to_dict(self._config), trial.changes).model.exits
                found.append(
                    Entry(
                        weights=weights,
                        placements=(exits,),
                        changes=trial.changes,
                        trial=trial.number,
                        points=tuple(trial.kept_points),
                    )
                )
        if not found and not beside:
            reasons = [trial.reason for trial in trials if trial.reason]
            said = f": {reasons[0]}" if reasons else ""
            raise TrainingError(f"no trial of {len(trials)} left a point worth anything{said}")
        return found

    def _judge(self) -> Judge:
        request, config = self._request, self._config
        videos = None
        if request.source is not None:
            device = torch.device(request.how.device)
            videos = Videos.read(request.source, config.search.frames, device)
            if videos.left_out:
                names = ", ".join(videos.left_out)
                self._say(f"{len(videos.left_out)} sequences cannot be followed: {names}")
        return Judge(
            config=config,
            videos=videos,
            out=self._folder,
            how=request.how,
            reference=self._reference,
            say=self._say,
        )

    def _stated(self, model: ModelConfig) -> tuple[float, ...]:
        """Return the reference point, and refuse one that no exit of the model can beat."""
        latency = measured(self._folder, model, self._request.how) if self._needs_ms() else None
        reference = solving.reference_point(
            self._config.search, full_depth(planned_costs(model, latency))
        )
        quickest = spaces.cheapest_model(self._config, self._request.mode)
        if latency is not None and quickest is not None:
            spaces.refuse_unreachable(
                self._config.search,
                "ms",
                measured(self._folder, quickest, self._request.how).milliseconds[0],
                "the cheapest exit takes here",
            )
        return reference

    def _needs_ms(self) -> bool:
        search = self._config.search
        return "ms" in search.objectives or any(bound.name == "ms" for bound in search.bounds)

    def _timed(self, changes: Mapping[str, Any]) -> Latency:
        model = resolve(to_dict(self._config), changes).model
        return measured(self._folder, model, self._request.how)

    def _job(self) -> Job:
        return Job(
            recipe=to_dict(self._config),
            reference=self._reference,
            location=self._request.location,
        )

    def _watching(self) -> Watching:
        return Watching(began=self._on_begin, reported=self._on_report, ended=self._on_end)

    def _on_begin(self, trial: TrialRecord) -> None:
        self._log.child(trial.name).running()
        self._log.child(trial.name).parameters(trial.changes)
        self._stand()

    def _on_report(self, trial: TrialRecord, metrics: dict[str, Any]) -> None:
        values = {METRIC: float(metrics[METRIC])}
        values |= {f"train/{name}": float(value) for name, value in metrics["losses"].items()}
        values["memory_megabytes"] = float(metrics["memory_megabytes"])
        self._log.child(trial.name).metrics(values, int(metrics[EPOCH]))
        self._stand()

    def _on_end(self, trial: TrialRecord) -> None:
        self._fresh += 1
        tidy(self._job(), trial.number, stopped=trial.status == "stopped")
        child = self._log.child(trial.name)
        child.tags({"outcome": trial.status, "failure": trial.reason})
        child.end("FAILED" if trial.status == "failed" else "FINISHED")
        standing = self._stand()
        spent = sum(t.seconds.get("all", 0.0) for t in self._record.trials)
        ended = sum(t.status != "running" for t in self._record.trials)
        self._log.metrics({METRIC: standing.hypervolume, "spent_s": spent}, step=ended)

    def _stand(self) -> Standing:
        search, union = self._config.search, self._record.union()
        kept = [point for point in union if solving.keeps(point.values, search)]
        budget = search.trials if self._request.mode == "full" else 1 + search.finetuned
        standing = Standing(
            trials=tuple(self._record.trials),
            budget=budget,
            hypervolume=solving.volume(kept, search.objectives, self._reference),
            points=tuple(kept[k] for k in solving.unbeaten(kept, search.objectives)),
            elapsed=time.monotonic() - self._began,
            fresh=self._fresh,
        )
        self._show(standing)
        return standing

    def _keep(self, front: Front) -> Searched:
        """Write the front, remove weights that it does not need, and log everything."""
        config, record, folder = self._config, self._record, self._folder
        needed = {member.weights for member in front.members}
        for trial in record.trials:
            where = f"{self._job().folder(trial.number)}/{TRACKER}"
            if where not in needed and self._request.mode == "full":
                files.remove_folder(where)
        assert record.run_id is not None  # set when the run was opened
        before = members.load(folder)
        written = members.write(front, config, folder)
        written += pareto.write(folder, members.run_points(front, self._data()))
        rows = [member.to_dict() for member in front.members]
        links = rebuild.links_of(record.run_id)
        pages = page.write(folder, rows, members.details(front), record.to_dict(), links)
        elsewhere = self._request.location != str(folder)
        if elsewhere:
            files.remove_folder(f"{self._request.location}/front")
        for path in (*written, *pages):
            if path.is_file():
                name = str(path.relative_to(folder))
                self._log.append({"file": name})
                if elsewhere:
                    files.write_bytes(f"{self._request.location}/{name}", path.read_bytes())
        if elsewhere:
            self._log.file("search.json", (json.dumps(record.to_dict()) + "\n").encode())
        else:
            self._log.append({"file": "search.json"})
        on_front = sum(member.on_front for member in front.members)
        step = len(record.trials)
        self._log.metrics({METRIC: front.hypervolume, "on_front": float(on_front)}, step=step)
        self._log.metrics(members.metrics(front.members, before), step=0)
        self._log_weights(front)
        return Searched(
            front=front,
            record=record,
            run_id=record.run_id,
            folder=folder,
            files=(*written, *pages),
        )

    def _data(self) -> str:
        source = self._request.source
        if source is None:
            return f"validation data of {self._config.name}"
        return f"{source.dataset} {source.split or 'default'}"

    def _log_weights(self, front: Front) -> None:
        """Keep weights and operating points of members: with their trials, or with the search.

        Those of mode post-hoc are of a tracker that was there before.
        """
        shutil.rmtree(self._folder / members.WEIGHTS, ignore_errors=True)  # of an earlier front
        for member, one in zip(front.members, front.candidates, strict=True):
            if not member.on_front or member.weights is None or front.mode == "post-hoc":
                continue
            target = self._folder / members.WEIGHTS / member.name
            with files.local_copy(member.weights) as folder:
                saved = checkpoint.load(folder)
            points = [members.point_of(member), *saved.points]
            checkpoint.save(target, saved.network, points, saved.notes)
            names = [str(path.relative_to(self._folder)) for path in sorted(target.iterdir())]
            if one.trial is None:
                for name in names:
                    self._log.append({"file": name})
                continue
            child = self._log.child(self._record.trials[one.trial].name)
            for name in names:
                child.append({"file": name, "as": member.name})
            child.append({"file": f"front/{member.name}.yaml"})
