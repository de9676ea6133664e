import socket

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from dytrack_platform.training import worker


def work(rank, config, port, folder):
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    state = worker.train(config, worker.Outlet(), worker.Place(rank=rank, world=2))
    torch.save(state.module.state_dict(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_workers_end_with_the_same_weights(recipe, tmp_path, monkeypatch):
    """They see different pairs; only exchanged gradients keep them together."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = recipe(train__workers=2, distillation__feature=0, train__epochs=1)
    mp.spawn(work, (config, port, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for name, value in first.items():
        if "running_" not in name:  # batch norm keeps statistics of a worker's own pairs
            assert torch.equal(value, second[name]), name
