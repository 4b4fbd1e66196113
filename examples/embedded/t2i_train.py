"""Trains UNet and text encoder of the embedded text-to-image model; the VAE stays as it is.

    python t2i_train.py --init pipelines/embedded --out runs/t2i --steps 3000
    python t2i_train.py --init pipelines/embedded --out runs/t2i --steps 3000 --resume      # after an interrupt

v-prediction on the latents, an exponential mean of the weights, and a schedule driven by step counts: warm-up, a
plateau, then a cosine to zero. `--ranks 2` shares each batch between two single-threaded processes, which on a busy CPU
is much faster than two threads.
"""

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from diffusers import StableDiffusionPipeline
from muon import optimizers
from t2i_data import latents, scenes, sentences
from t2i_sampling import load
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn import functional
from torch.optim import Optimizer

CLIP = 1.0  # largest norm of a gradient


@dataclass
class Training:
    """What a checkpoint holds: the networks, the exponential mean of their weights, and the optimisers."""

    networks: nn.ModuleDict
    mean: dict[str, Tensor]
    optimizers: list[Optimizer]
    step: int = 0

    def state(self) -> dict[str, object]:
        """Everything that `restore` needs."""
        states = [optimizer.state_dict() for optimizer in self.optimizers]
        return {"networks": self.networks.state_dict(), "mean": self.mean, "optimizers": states, "step": self.step}

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint."""
        state = torch.load(path)
        self.networks.load_state_dict(state["networks"])
        self.mean, self.step = state["mean"], state["step"]
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)


def train(rank: int, options: argparse.Namespace) -> None:
    """Train one rank of `options.ranks`."""
    torch.set_num_threads(1)
    if options.ranks > 1:
        rendezvous = f"file://{options.out.resolve()}/rendezvous"
        distributed.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=options.ranks)
    pipe = load(options.init)
    training = _start(pipe, options.lr)
    checkpoint = options.out / "checkpoint.pt"
    if options.resume and checkpoint.exists():
        training.restore(checkpoint)
    pool = scenes(options.pool, options.seed + rank)
    targets = latents(pool, pipe.vae, options.seed + rank, options.out / f"latents-{rank}.pt")
    alphas = pipe.scheduler.alphas_cumprod
    losses: list[float] = []
    began = time.time()
    while training.step < options.steps:
        training.step += 1
        rng = Random(
            f"{options.seed}-{rank}-{training.step}"
        )  # of the step alone, so a resumed run sees the same batches
        rows = [rng.randrange(len(pool)) for _ in range(options.batch // options.ranks)]
        ids = sentences([pool[row] for row in rows], pipe.tokenizer, rng)
        loss = v_loss(training.networks, targets[rows], ids, alphas, rng.getrandbits(62))
        _update(training, loss, learning_rate(training.step, options), options.ranks)
        losses.append(loss.item())
        if rank == 0 and training.step % 50 == 0:
            record = {"step": training.step, "loss": sum(losses) / len(losses), "seconds": time.time() - began}
            _log(options.out / "log.jsonl", record | {"lr": learning_rate(training.step, options)})
            losses.clear()
        if rank == 0 and (training.step % options.save_every == 0 or training.step == options.steps):
            _save(pipe, training, options.out)


def v_loss(networks: nn.ModuleDict, clean: Tensor, ids: Tensor, alphas: Tensor, seed: int) -> Tensor:
    """Mean squared error of the velocity v = sqrt(a) noise - sqrt(1 - a) clean (Salimans and Ho, 2022)."""
    generator = torch.Generator().manual_seed(seed)
    # u^0.8 leans towards the noisy steps, where the layout of a scene is decided.
    timesteps = (torch.rand(len(clean), generator=generator) ** 0.8 * 1000).long().clamp(0, 999)
    noise = torch.randn(clean.shape, generator=generator)
    alpha, sigma = (share[timesteps, None, None, None].sqrt() for share in (alphas, 1 - alphas))
    text = networks["text_encoder"](ids).last_hidden_state
    predicted = networks["unet"](alpha * clean + sigma * noise, timesteps, text).sample
    return functional.mse_loss(predicted, alpha * noise - sigma * clean)


def learning_rate(step: int, options: argparse.Namespace) -> float:
    """Linear warm-up over 100 steps, a plateau to 30 % of the run, then a cosine to zero."""
    share = max(0.0, (step / options.steps - 0.3) / 0.7)
    return options.lr * min(1.0, step / 100) * (1 + math.cos(math.pi * share)) / 2


def _start(pipe: StableDiffusionPipeline, lr: float) -> Training:
    networks = nn.ModuleDict({"unet": pipe.unet, "text_encoder": pipe.text_encoder}).train()
    mean = {name: parameter.detach().clone() for name, parameter in networks.named_parameters()}
    return Training(networks, mean, optimizers(networks, lr))


def _update(training: Training, loss: Tensor, lr: float, ranks: int) -> None:
    """One step of the optimisers and of the mean."""
    parameters = list(training.networks.parameters())
    training.networks.zero_grad()
    loss.backward()
    if ranks > 1:
        _share_gradients(parameters, ranks)
    nn.utils.clip_grad_norm_(parameters, CLIP)
    for optimizer in training.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
    decay = min(0.998, training.step / (training.step + 20))
    current = [parameter.detach() for parameter in parameters]
    torch._foreach_lerp_(list(training.mean.values()), current, 1 - decay)


def _share_gradients(parameters: list[nn.Parameter], ranks: int) -> None:
    """Every rank gets the mean gradient, with one message a step."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = nn.utils.parameters_to_vector(gradients)
    distributed.all_reduce(flat)
    nn.utils.vector_to_parameters(flat / ranks, gradients)


def _log(path: Path, record: dict[str, float]) -> None:
    line = json.dumps({key: float(f"{value:.5g}") for key, value in record.items()})
    print(line, flush=True)
    with path.open("a") as file:
        file.write(line + "\n")


def _save(pipe: StableDiffusionPipeline, training: Training, out: Path) -> None:
    """A checkpoint to go on from, and the mean weights as a pipeline named after the step."""
    torch.save(training.state(), out / "checkpoint.new")
    (out / "checkpoint.new").replace(out / "checkpoint.pt")
    current = {name: parameter.detach().clone() for name, parameter in training.networks.named_parameters()}
    _assign(training.networks, training.mean)
    pipe.save_pretrained(out / f"step-{training.step:05d}")
    _assign(training.networks, current)


@torch.no_grad()
def _assign(networks: nn.ModuleDict, values: dict[str, Tensor]) -> None:
    for name, parameter in networks.named_parameters():
        parameter.copy_(values[name])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--init", type=Path, required=True, help="pipeline to start from")
    parser.add_argument("--out", type=Path, required=True, help="folder for logs, checkpoints and pipelines")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--pool", type=int, default=30000, help="rendered scenes per rank")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--save-every", type=int, default=500)
    parser.add_argument("--resume", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Train in `--ranks` processes."""
    options = _arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "rendezvous").unlink(missing_ok=True)
    if options.ranks == 1:
        train(0, options)
    else:
        multiprocessing.spawn(train, (options,), nprocs=options.ranks)


if __name__ == "__main__":
    main()
