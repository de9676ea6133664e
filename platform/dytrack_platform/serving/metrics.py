"""What a server tells of itself, in Prometheus' words."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_MS = (0.5, 1, 2, 4, 8, 16, 25, 40, 60, 100, 250, 1000)


class Metrics:
    """The numbers of one replica."""

    def __init__(self) -> None:
        own = self.registry = CollectorRegistry()
        self.connections = Gauge("dytrack_connections", "Open WebSockets", registry=own)
        self.streams = Gauge("dytrack_streams", "Streams that are started", registry=own)
        self.targets = Gauge("dytrack_targets", "Targets that are followed", registry=own)
        self.waiting = Gauge("dytrack_waiting", "Frames that wait or run", registry=own)
        self.frames = Counter("dytrack_frames", "Frames that were answered", registry=own)
        self.exits = Counter(
            "dytrack_exits", "Targets' frames by the depth of their exit", ["exit"], registry=own
        )
        self.states = Counter("dytrack_states", "Targets' frames by state", ["state"], registry=own)
        self.dropped = Counter("dytrack_dropped", "Frames that newer ones replaced", registry=own)
        self.errors = Counter("dytrack_errors", "Errors told to clients", ["code"], registry=own)
        self.ended = Counter("dytrack_ended", "Streams by why they ended", ["reason"], registry=own)
        self.parts = Histogram(
            "dytrack_frame_ms",
            "Milliseconds of an answered frame by part",
            ["part"],
            buckets=_MS,
            registry=own,
        )
        self.stage = Histogram(
            "dytrack_batch_ms",
            "Milliseconds of a batch by graph",
            ["graph"],
            buckets=_MS,
            registry=own,
        )
        self.rows = Histogram(
            "dytrack_batch_rows",
            "Frames of a batch by graph",
            ["graph"],
            buckets=(1, 2, 3, 4, 6, 8),
            registry=own,
        )
        self.regrouped = Gauge(
            "dytrack_regroupings", "Times that frames waited for others", registry=own
        )
        self.audits = Counter("dytrack_audits", "Frames run on to full depth", registry=own)
        self.audits_dropped = Gauge(
            "dytrack_audits_dropped", "Audits that there was no time for", registry=own
        )
        self.agreement = Gauge(
            "dytrack_agreement", "IoU of shallow boxes with deep ones", ["stream"], registry=own
        )
        self.drift = Gauge(
            "dytrack_drift", "How much the agreement fell lately", ["stream"], registry=own
        )
        self.model = Gauge(
            "dytrack_model_info",
            "1 for the versions that serve",
            ["name", "version"],
            registry=own,
        )
        self.refused = Counter(
            "dytrack_models_refused", "New versions that could not be used", registry=own
        )

    def text(self) -> str:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self.registry).decode()


def merge(texts: dict[str, str]) -> str:
    """Join the metrics of several replicas, each line labelled with its replica.

    Args:
        texts: By a replica's name.
    """
    helps: dict[str, list[str]] = {}
    rows: dict[str, list[str]] = {}
    for replica, text in sorted(texts.items()):
        family = ""
        for line in text.splitlines():
            if line.startswith("# HELP "):
                family = line.split(" ", 3)[2]
            if line.startswith("#"):
                known = helps.setdefault(family, [])
                if len(known) < 2:
                    known.append(line)
                continue
            name, brace, rest = line.partition("{")
            if brace:
                labelled = f'{name}{{replica="{replica}",{rest}'
            else:
                name, _, value = line.partition(" ")
                labelled = f'{name}{{replica="{replica}"}} {value}'
            rows.setdefault(family, []).append(labelled)
    lines = []
    for family, known in helps.items():
        lines += [*known, *rows.get(family, [])]
    return "\n".join(lines) + "\n"
