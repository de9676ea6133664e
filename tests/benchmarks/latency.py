"""Milliseconds of every exit on every runtime: ``python -m tests.benchmarks.latency``.

All engines of a size live in one process and take turns, route by route, so that a drift of the
machine meets all alike. A turn is four frames, as a tracker runs one engine frame after frame; the
first is not counted, for it pays for what the others left in the caches. Times are medians. The
last line is JSON. GFLOP/s are twice the counted GMACs over the time, and are set against the
largest matrix product rate that this process reached in the same precision. ``--sizes tiny
--rounds 3`` makes it short.
"""

import argparse
import json
import platform
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dytrack_model.config import variant
from dytrack_model.cost import exit_gmacs, route
from dytrack_model.images import RGB
from dytrack_model.network import DyTrackNetwork
from dytrack_model.online import Tracker
from dytrack_model.runtime import build
from dytrack_model.runtime.engine import Engine, Precision
from dytrack_model.runtime.graphs import chain, examples, modules
from dytrack_model.runtime.openvino_engine import compiled_graph

RUNTIMES = {
    "torch fp32": ("torch", "fp32"),
    "torch bf16": ("torch", "bf16"),
    "compile fp32": ("compile", "fp32"),
    "onnx fp32": ("onnx", "fp32"),
    "openvino fp32": ("openvino", "fp32"),
    "openvino bf16": ("openvino", "bf16"),
    "openvino int8": ("openvino", "int8"),
}
EAGER = "torch fp32"
FRAMES = 4
"""Frames of a turn."""


class Whole(nn.Module):
    """The deepest route as one graph, decisioners of refused exits included."""

    def __init__(self, network: DyTrackNetwork) -> None:
        super().__init__()
        deepest = network.exit_count - 1
        wanted = {("stage", k) for k in range(deepest + 1)} | {("head", deepest)}
        parts = {
            graph: part
            for graph, part in modules(network)
            if not graph.narrow and (graph.kind, graph.exit_index) in wanted
        }
        self.graphs, self.parts = list(parts), nn.ModuleList(parts.values())
        self.inputs = sorted({n for g in self.graphs for n in g.inputs if n.startswith("template")})
        scores = [n for g in self.graphs for n in g.outputs if n.startswith("predicted_iou")]
        self.outputs = [*scores, *self.graphs[-1].outputs]

    def forward(self, search, *states):
        tensors = {"search": search, **dict(zip(self.inputs, states, strict=True))}
        for graph, part in zip(self.graphs, self.parts, strict=True):
            given = part(*(tensors[name] for name in graph.inputs))
            tensors |= dict(zip(graph.outputs, given, strict=True))
        return tuple(tensors[name] for name in self.outputs)


def whole_graph(
    network: DyTrackNetwork, engine: Engine, threads: int, precision: Precision
) -> Callable[[], None]:
    """The deepest route as one graph of OpenVINO, on what the engine keeps of a target."""
    part = Whole(network).eval()
    tensors = examples(network)
    given = (tensors["search"], *(tensors[name] for name in part.inputs))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "whole.onnx"
        names = {"input_names": ["search", *part.inputs], "output_names": part.outputs}
        torch.onnx.export(part, given, str(path), opset_version=20, dynamo=False, **names)
        compiled = compiled_graph(path, precision, threads)
        request = compiled.create_infer_request()
    known = engine.begin(
        tensors["search"].numpy(), engine.embed_template(tensors["template"].numpy())
    )
    held = [known[name] for name in ("search", *part.inputs)]

    def run() -> None:
        for index, tensor in enumerate(held):
            request.set_input_tensor(index, tensor)
        request.infer()

    return run


def staged_graphs(engine: Engine) -> Callable[[], None]:
    """The same graphs as :func:`whole_graph`, one by one, without reading the box on the host."""
    rng = np.random.default_rng(0)
    config = engine.config
    template, search = (
        rng.integers(0, 256, (1, side, side, 3), dtype=np.uint8)
        for side in (config.template_size, config.search_size)
    )
    kept = engine.embed_template(template)

    def run() -> None:
        tensors = engine.begin(search, kept)
        for index in range(engine.exit_count):
            engine.advance(index, tensors)
        engine.locate(engine.exit_count - 1, tensors)

    return run


def peak(threads: int) -> dict[str, float]:
    """Return the best GFLOP/s of a large matrix product by torch and OpenVINO, by precision."""
    import openvino
    from openvino import opset13

    torch.set_num_threads(threads)
    side, best = 2048, {"fp32": 0.0, "bf16": 0.0, "int8": 0.0}
    layers = 4
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((side, side)).astype(np.float32) for _ in range(layers)]
    node = start = opset13.parameter([side, side], np.float32)
    for weight in weights:
        node = opset13.matmul(node, opset13.constant(weight * 0.02), False, False)
    runs: dict[str, list[tuple[Callable[[], object], int]]] = {name: [] for name in best}
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a = torch.from_numpy(weights[0]).to(dtype)
        runs[precision].append((lambda a=a: torch.mm(a, a), 1))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "products.xml"
        openvino.save_model(openvino.Model([node], [start]), path, compress_to_fp16=False)
        for precision, ways in runs.items():
            compiled = compiled_graph(path, precision, threads)
            request = compiled.create_infer_request()
            ways.append((lambda r=request: r.infer([weights[0]]), layers))
    for _ in range(8):
        for precision, ways in runs.items():
            for way, products in ways:
                began = time.perf_counter()
                way()
                rate = 2 * products * side**3 / (time.perf_counter() - began) / 1e9
                best[precision] = max(best[precision], rate)
    return best


def outside_network(rounds: int) -> float:
    """Return milliseconds of a frame outside the graphs, by an engine whose graphs cost nothing."""
    network = DyTrackNetwork(variant("tiny")).eval()
    engine = build(network)
    tensors = examples(network)
    engine._graphs = {
        graph.name: (lambda *_, given=tuple(tensors[n] for n in graph.outputs): given)
        for graph in chain(network.config)
    }
    rng = np.random.default_rng(0)
    frame = RGB(rng.integers(0, 256, (720, 1280, 3), dtype=np.uint8))
    tracker = Tracker(engine)
    times = []
    for _ in range(rounds + 5):
        tracker.start(frame, (600.0, 300.0, 80.0, 60.0))
        began = time.perf_counter()
        tracker.step(frame)
        times.append((time.perf_counter() - began) * 1e3)
    return float(np.median(times[5:]))


def measure(size: str, rounds: int, threads: int, names: list[str], peaks: dict) -> dict:
    """Time one size on every runtime."""
    torch.manual_seed(0)
    network = DyTrackNetwork(variant(size)).eval()
    gmacs = exit_gmacs(network)
    engines: dict[str, Engine] = {}
    for name in names:
        runtime, precision = RUNTIMES[name]
        engines[name] = build(network, runtime, precision, threads=threads)
    routes = {name: [route(e, k) for k in range(e.exit_count)] for name, e in engines.items()}
    whole = {name: [] for name in names if name.startswith("openvino")}
    for name in whole:
        routes[f"{name} whole"] = [whole_graph(network, engines[name], threads, RUNTIMES[name][1])]
        routes[f"{name} staged"] = [staged_graphs(engines[name])]
    times: dict[str, list[list[float]]] = {n: [[] for _ in r] for n, r in routes.items()}
    for turn in range(rounds + 1):
        for name, runs in routes.items():
            for kept, run in zip(times[name], runs, strict=True):
                for frame in range(FRAMES):
                    began = time.perf_counter()
                    run()
                    if turn and frame:
                        kept.append((time.perf_counter() - began) * 1e3)
    medians = {n: [float(np.median(kept)) for kept in each] for n, each in times.items()}
    spreads = {
        n: [[float(v) for v in np.percentile(kept, (10, 90))] for kept in each]
        for n, each in times.items()
    }
    eager = medians[EAGER][-1]
    result: dict = {"gmacs": gmacs, "gmac_share": [g / gmacs[-1] for g in gmacs], "runtimes": {}}
    for name, engine in engines.items():
        rate = 2 * gmacs[-1] / (medians[name][-1] / 1e3)
        ratios = [
            a[-1] / b[-1] for a, b in zip(*(_columns(times[n]) for n in (EAGER, name)), strict=True)
        ]
        result["runtimes"][name] = {
            "precision": engine.precision,
            "ms": medians[name],
            "ms_10_90": spreads[name],
            "time_share": [ms / medians[name][-1] for ms in medians[name]],
            "speedup_full_depth": eager / medians[name][-1],
            "speedup_10_90": [float(v) for v in np.percentile(ratios, (10, 90))],
            "gflops": rate,
            "share_of_peak": rate / peaks[engine.precision],
        }
    for name in whole:
        both = zip(times[f"{name} staged"][0], times[f"{name} whole"][0], strict=True)
        result["runtimes"][name]["staged_over_whole"] = float(np.median([a / b for a, b in both]))
        result["runtimes"][name]["whole_ms"] = medians[f"{name} whole"][0]
    return result


def _columns(each: list[list[float]]) -> list[tuple[float, ...]]:
    return list(zip(*each, strict=True))


def show(size: str, result: dict) -> None:
    """Print one size as a table."""
    shares = " ".join(f"{share:.2f}" for share in result["gmac_share"])
    print(f"\n{size}: GMACs {' '.join(f'{g:.2f}' for g in result['gmacs'])} (shares {shares})")
    for name, row in result["runtimes"].items():
        ms = " ".join(f"{value:8.2f}" for value in row["ms"])
        share = " ".join(f"{value:.2f}" for value in row["time_share"])
        extra = f", {row['staged_over_whole']:.3f} of one graph" if "whole_ms" in row else ""
        print(
            f"  {name:14} {ms} ms, time shares {share}, {row['speedup_full_depth']:.2f}x eager, "
            f"{row['gflops']:.0f} GFLOP/s = {row['share_of_peak']:.0%} of peak{extra}"
        )


def main() -> None:
    """Measure, print tables, and JSON in the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=["tiny", "small", "base"])
    parser.add_argument("--runtimes", nargs="+", default=list(RUNTIMES), choices=list(RUNTIMES))
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    names = [EAGER, *(name for name in given.runtimes if name != EAGER)]
    peaks = peak(given.threads)
    rates = ", ".join(f"{rate:.0f} {precision}" for precision, rate in peaks.items())
    print(f"matrix product peak, GFLOP/s: {rates}")
    outside = outside_network(100)
    print(f"outside the network: {outside:.2f} ms a frame")
    sizes = {}
    for size in given.sizes:
        sizes[size] = measure(size, given.rounds, given.threads, names, peaks)
        show(size, sizes[size])
    record = {
        "benchmark": "latency",
        "machine": platform.processor() or platform.machine(),
        "threads": given.threads,
        "rounds": given.rounds,
        "torch": torch.__version__,
        "peak_gflops": peaks,
        "outside_network_ms": outside,
        "sizes": sizes,
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
