"""A training loop that counts steps, can be stopped and resumed, and runs on one or more single-thread processes.

Two processes with one thread each and one all-reduce a step beat one process with two threads on a shared machine.
"""

import os
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed, multiprocessing, nn

Metrics = dict[str, float]
SAVE_EVERY = 200
LOG_EVERY = 25


class Worker(NamedTuple):
    """One of `count` processes."""

    rank: int = 0
    count: int = 1

    @property
    def device(self) -> torch.device:
        """A GPU where there is one and the process is alone, else the CPU."""
        return torch.device("cuda" if self.count == 1 and torch.cuda.is_available() else "cpu")


def launch(main: Callable[..., None], count: int, *arguments: Any) -> None:
    """Run `main(worker, *arguments)` in `count` processes."""
    if count == 1:
        torch.set_num_threads(1)
        main(Worker(), *arguments)
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, GLOO_SOCKET_IFNAME="lo")
    multiprocessing.spawn(_enter, (main, count, arguments), nprocs=count)


def _enter(rank: int, main: Callable[..., None], count: int, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=count)
    main(Worker(rank, count), *arguments)
    distributed.destroy_process_group()


def optimizers(modules: Iterable[nn.Module], rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the hidden matrices, AdamW for embeddings, norms, biases and outputs."""
    hidden: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for module in modules:
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            matrix = parameter.ndim == 2 and min(parameter.shape) >= 32 and "embed" not in name
            (hidden if matrix else others).append(parameter)
    muon = torch.optim.Muon(hidden, lr=rate, weight_decay=0.0, ns_steps=4, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0)]


class Loop:
    """Steps, schedule, checkpoints and log of one run.

    Args:
        folder: where state.pt and log.txt go.
        modules: what is trained and saved, by name.
        steps: how many steps there are; the rate warms up over 40 of them and falls linearly to a twentieth.
        rate: learning rate of both optimizers.
        worker: this process.
    """

    def __init__(self, folder: Path, modules: dict[str, nn.Module], steps: int, rate: float, worker: Worker) -> None:
        """Prepare the optimizers and the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for module in modules.values():
            module.to(worker.device)
        self.folder, self.modules, self.steps, self.rate, self.worker = folder, modules, steps, rate, worker
        self.optimizers = optimizers(modules.values(), rate)
        self.parameters = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
        self.step = 0
        self._sums: Metrics = {}
        self._count = 0
        self._started = time.time()

    def resume(self) -> None:
        """Go on from state.pt."""
        state = torch.load(self.folder / "state.pt", map_location=self.worker.device, weights_only=True)
        for name, module in self.modules.items():
            module.load_state_dict(state[name])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step = state["step"]

    def run(self, loss: Callable[[int], tuple[Tensor, Metrics]], check: Callable[[int], None] | None = None) -> None:
        """Minimise `loss(step)`; `check(step)` runs in the first process before each checkpoint."""
        while self.step < self.steps:
            self._set_rate()
            value, metrics = loss(self.step)
            for optimizer in self.optimizers:
                optimizer.zero_grad()
            value.backward()
            self._share_gradients()
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            for optimizer in self.optimizers:
                optimizer.step()
            self.step += 1
            self._note({"loss": value.item(), **metrics})
            if self.worker.rank == 0 and (self.step % SAVE_EVERY == 0 or self.step == self.steps):
                if check:
                    check(self.step)
                self.save()

    def log(self, text: str) -> None:
        """One line to the log and to stdout."""
        line = f"{time.time() - self._started:.0f}s step {self.step} {text}"
        with (self.folder / "log.txt").open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)

    def save(self) -> None:
        """Write state.pt, whole or not at all."""
        state: dict[str, Any] = {name: module.state_dict() for name, module in self.modules.items()}
        state |= {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers], "step": self.step}
        torch.save(state, self.folder / "state.tmp")
        (self.folder / "state.tmp").rename(self.folder / "state.pt")

    def _set_rate(self) -> None:
        done = self.step / self.steps
        rate = self.rate * min(1.0, (self.step + 1) / 40) * (1 - 0.95 * done)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate

    def _share_gradients(self) -> None:
        if self.worker.count == 1:
            return
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        distributed.all_reduce(flat)
        for gradient, share in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(share.view_as(gradient) / self.worker.count)

    def _note(self, metrics: Metrics) -> None:
        self._count += 1
        for name, value in metrics.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        if self._count == LOG_EVERY:
            if self.worker.rank == 0:
                self.log(" ".join(f"{name} {value / self._count:.3f}" for name, value in self._sums.items()))
            self._sums, self._count = {}, 0


def load_modules(path: Path, modules: dict[str, nn.Module]) -> None:
    """Weights of another run's state.pt, without its optimizers."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    for name, module in modules.items():
        module.load_state_dict(state[name])
