"""DDP, local SGD and slow momentum between two machines joined by a slow link, and the cost model.

    python benchmarks/slow_link.py                            # 100 Mbit/s, H = 8 and 32
    python benchmarks/slow_link.py --rate 20mbit --periods 8 64 --out slow_link.json

The machines are two network namespaces of this one, joined by a pair of virtual interfaces whose
rate is limited (no traffic leaves the machine). Needs root and iproute2 on Linux; says why it skips
where namespaces are refused. All methods train the same small network in turn, several times over,
under the Trainer; times are medians. The model to compare with, for m processes:

    t(DDP) = max(t(compute), C)      t(H local steps) = t(compute) + C / H
    C = 2 (m - 1) / m * bytes / bandwidth

where t(compute) is measured without any communication, and the bandwidth with a plain socket.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ADDRESSES = ("10.77.0.1", "10.77.0.2")
PORTS = (29633, 29634)  # of the process group, of the measurement of the bandwidth
WIDTHS = (256, 512, 512, 10)
BATCH = 32
PROBE_BYTES = 8_000_000


class Refused(Exception):
    """Namespaces cannot be made here."""


# the link


def command(words: str) -> None:
    """Run a command of iproute2."""
    try:
        done = subprocess.run(words.split(), capture_output=True, text=True)
    except FileNotFoundError:
        raise Refused(f"{words.split()[0]} is not installed (package iproute2)") from None
    if done.returncode:
        raise Refused(f"`{words}` says: {done.stderr.strip()}")


@contextlib.contextmanager
def slow_link(rate: str) -> Iterator[list[tuple[str, str]]]:
    """Two namespaces and their interfaces, joined at a rate; removed afterwards in any case."""
    sides = [(f"slow{os.getpid()}{side}", f"veth{side}") for side in "AB"]
    made: list[str] = []
    try:
        for namespace, _ in sides:
            command(f"ip netns add {namespace}")
            made.append(namespace)
        (a, left), (b, right) = sides
        command(f"ip link add {left} netns {a} type veth peer name {right} netns {b}")
        for (namespace, interface), address in zip(sides, ADDRESSES, strict=True):
            command(f"ip -n {namespace} addr add {address}/24 dev {interface}")
            command(f"ip -n {namespace} link set lo up")
            command(f"ip -n {namespace} link set {interface} up")
            command(
                f"ip netns exec {namespace} tc qdisc add dev {interface} root tbf rate {rate} "
                "burst 64kb latency 200ms"
            )
        yield sides
    finally:
        for namespace in made:
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True)


def run_on_both(sides: Sequence[tuple[str, str]], words: Sequence[str]) -> None:
    """Run this file as a worker in both namespaces."""
    workers = []
    try:
        for rank, (namespace, interface) in enumerate(sides):
            environment = {
                **os.environ,
                "GLOO_SOCKET_IFNAME": interface,
                "MASTER_ADDR": ADDRESSES[0],
                "MASTER_PORT": str(PORTS[0]),
                "NODE_RANK": str(rank),
                "LOCAL_RANK": "0",
                "OMP_NUM_THREADS": "1",
            }
            prefix = ["ip", "netns", "exec", namespace, sys.executable, __file__]
            workers.append(subprocess.Popen([*prefix, *words], env=environment))
        while any(worker.poll() is None for worker in workers):
            if any(worker.poll() for worker in workers):
                break  # the other would wait for it
            time.sleep(0.1)
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.terminate()
            worker.wait()
    if any(worker.returncode for worker in workers):
        raise SystemExit("a worker failed")


# the workers


def measure_bandwidth(rank: int) -> float:
    """Bytes per second from one machine to the other, over TCP; the value of the receiver."""
    if rank == 0:
        with socket.create_server((ADDRESSES[0], PORTS[1])) as server:
            connection, _ = server.accept()
            with connection:
                seen, first, begin = 0, 0, 0.0
                while data := connection.recv(1 << 16):
                    seen += len(data)
                    if not begin and seen > PROBE_BYTES // 4:  # a burst passes unlimited
                        first, begin = seen, time.perf_counter()
                return (seen - first) / (time.perf_counter() - begin)
    for _ in range(600):
        with contextlib.suppress(OSError):
            with socket.create_connection(ADDRESSES[:1] + PORTS[1:]) as connection:
                connection.sendall(bytes(PROBE_BYTES))
            return 0.0
        time.sleep(0.1)
    raise SystemExit("no connection over the link")


def time_steps(strategy: Any, skip: int, steps: int, callbacks: Sequence[Any] = ()) -> float:
    """Seconds per step under the Trainer, from the end of step ``skip`` on."""
    import lightning.pytorch as pl

    class Network(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            layers: list[nn.Module] = []
            for inputs, outputs in pairwise(WIDTHS):
                layers += [nn.Linear(inputs, outputs), nn.ReLU()]
            self.layers = nn.Sequential(*layers[:-1])
            self.begin = self.end = 0.0

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return F.cross_entropy(self.layers(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)

        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            self.end = time.perf_counter()
            if batch_idx + 1 == skip:
                self.begin = self.end

    trainer = pl.Trainer(
        strategy=strategy, accelerator="cpu", devices=1, num_nodes=2, max_epochs=1, barebones=True,
        callbacks=list(callbacks), use_distributed_sampler=False,
    )  # fmt: skip
    batch = torch.randn(BATCH, WIDTHS[0]), torch.randint(WIDTHS[-1], (BATCH,))
    module = Network()
    trainer.fit(module, torch.utils.data.DataLoader([batch] * (skip + steps), batch_size=None))
    return (module.end - module.begin) / steps


def worker(out: str, periods: Sequence[int], repeats: int) -> None:
    """Time everything on this machine and write it to a file."""
    import logging
    import warnings

    from lit_ssl.callbacks import SyncMonitor
    from lit_ssl.strategies import LocalSGDStrategy, SlowMomentumStrategy

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rank = int(os.environ["NODE_RANK"])
    times: dict[str, list[float]] = {}

    def add(name: str, *arguments: Any) -> None:
        times.setdefault(name, []).append(time_steps(*arguments))

    bandwidth = measure_bandwidth(rank)
    for _ in range(repeats):
        add("compute", LocalSGDStrategy(sync_every=10_000, final_sync="none"), 20, 200)
        add("ddp", "ddp", 4, 24)
        for period in periods:
            steps = (period, max(period, 64 // period * period))  # whole rounds
            add(f"local_sgd {period}", LocalSGDStrategy(period), *steps)
            add(f"slowmo {period}", SlowMomentumStrategy(sync_every=period), *steps)
    # not timed: what the advisor says on this link
    time_steps(SlowMomentumStrategy(sync_every=periods[0]), 1, 60, [SyncMonitor()])
    Path(f"{out}/{rank}.json").write_text(json.dumps({"bandwidth": bandwidth, "times": times}))


# the report


def report(folder: str, periods: Sequence[int]) -> dict[str, Any]:
    """Print measured and predicted times; returns them."""
    both = [json.loads(Path(f"{folder}/{rank}.json").read_text()) for rank in (0, 1)]
    bandwidth = both[0]["bandwidth"]
    # machines wait for each other, so that the slower one counts
    slower = {
        name: statistics.median(map(max, *(b["times"][name] for b in both)))
        for name in both[0]["times"]
    }
    numel = sum(a * b + b for a, b in pairwise(WIDTHS))
    message = 4 * numel / bandwidth  # 2 (m - 1) / m = 1 for two machines
    compute = slower["compute"]
    predicted = {"ddp": max(compute, message)}
    for period in periods:
        for method in ("local_sgd", "slowmo"):
            predicted[f"{method} {period}"] = compute + message / period
    print(
        f"\n{8e-6 * bandwidth:.1f} Mbit/s, {numel / 1e6:.2f} M parameters: {1e3 * message:.1f} ms "
        f"for an average, {1e3 * compute:.2f} ms for a step without communication\n\n"
        "method          ms/step   model    faster than DDP   model   measured / model"
    )
    rows = {}
    for name, model in predicted.items():
        gain, expected = slower["ddp"] / slower[name], predicted["ddp"] / model
        rows[name] = {"ms": 1e3 * slower[name], "speedup": gain, "model": expected}
        print(
            f"{name:14s} {1e3 * slower[name]:8.1f} {1e3 * model:7.1f} {gain:18.2f} {expected:7.2f} "
            f"{gain / expected:18.2f}"
        )
    return {"bandwidth": bandwidth, "compute_ms": 1e3 * compute, "methods": rows}


def main() -> None:
    """Parse, run, report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", default="100mbit", help="as tc writes it")
    parser.add_argument("--periods", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", help="file for the numbers, as JSON")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker, options.periods, options.repeats)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that the link is removed
    words = ["--repeats", str(options.repeats), "--periods", *map(str, options.periods)]
    with tempfile.TemporaryDirectory() as folder:
        try:
            if shutil.which("ip") is None or os.geteuid() != 0:
                raise Refused("it needs root and iproute2 (`ip`, `tc`)")
            with slow_link(options.rate) as sides:
                run_on_both(sides, [*words, "--worker", folder])
        except Refused as reason:
            print(f"skipped: {reason}")
            return
        numbers = report(folder, options.periods)
    if options.out:
        Path(options.out).write_text(json.dumps(numbers, indent=1))


if __name__ == "__main__":
    main()
