"""Two processes on the CPU train the same model as one, each with all of its weights or with a part of them."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from rewards.errors import RewardError
from rewards.llava.official import read_official
from rewards.llava.weights import tensors, weight_files
from rewards.training.records import Pair, Side, Single, write_records
from rewards.training.run import DONE, LOG, Run, train
from rewards.training.settings import Settings
from rewards.training.state import FILE
from rewards.training.zero import configuration
from tests.rewards.llava.cases import GOLDENS, qwen_base
from tests.rewards.training.partly import partly
from tests.rewards.training.world import misaligned, small

STEPS = 20
FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
ZERO = {"ACCELERATE_USE_DEEPSPEED": "true"}
SPLIT = {"zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0, "reduce_bucket_size": "auto"}}
needs_deepspeed = pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs deepspeed")
WAYS = ["shared", *(pytest.param(f"zero {stage}", marks=needs_deepspeed) for stage in (1, 2, 3))]


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def settings_of(**changes: object) -> Settings:
    return small(**{"steps": STEPS, "micro": 1, "rank": 2, "alpha": 4.0, "dropout": 0.0, "rate": 2e-4, **changes})


def two(tmp_path: Path, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Two processes of train-reward, which write to `tmp_path / "two"`."""
    together(
        "bon_search.train_cli", "--data", str(tmp_path / "data.jsonl"), "--base", "embedded",
        "--cpu", "--out", str(tmp_path / "two"), "--steps", str(STEPS), "--batch-size", "4", "--micro", "1",
        "--lora-rank", "2", "--lora-dropout", "0", "--rate", "2e-4", *arguments, environment=environment,
    )  # fmt: skip


def together(module: str, *arguments: str, environment: Mapping[str, str]) -> None:
    """Run a module in two processes."""
    shared = {
        **os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(),
        "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", **environment,
    }  # fmt: skip
    command = [sys.executable, "-m", module, *arguments]
    processes = [
        subprocess.Popen(command, env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    errors = [process.communicate()[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors


def way(sharing: str, folder: Path) -> tuple[list[str], dict[str, str]]:
    """Arguments and environment by which weights are shared."""
    if sharing == "shared":
        return ["--shard"], {}
    if sharing == "zero 3":
        return [], {**ZERO, "ACCELERATE_DEEPSPEED_CONFIG_FILE": split(folder)}
    return [], {**ZERO, "ACCELERATE_DEEPSPEED_ZERO_STAGE": sharing[-1]}


def split(folder: Path) -> str:
    """A file of DeepSpeed's, which shares out the smallest weights too."""
    (folder / "split.json").write_text(json.dumps(SPLIT))
    return str(folder / "split.json")


def weights(out: Path) -> dict[str, Tensor]:
    """All of a checkpoint."""
    read = read_official(out)
    low = {f"{name}.{half}": value for name, pair in read.lora.items() for half, value in zip("AB", pair, strict=True)}
    return {**low, **{name: value for path in weight_files(out) for name, value in tensors(path)}}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "environment", "changes"),
    [
        ([], {}, {}),
        (["--shard"], {}, {}),
        (["--shard", "--full", "--tower", "--checkpointing"], {}, {"full": True, "tower": True}),
        (["--full"], FSDP, {"full": True}),
        *(
            pytest.param([], {**ZERO, "ACCELERATE_DEEPSPEED_ZERO_STAGE": stage}, {}, marks=needs_deepspeed)
            for stage in "012"
        ),
        pytest.param([], {**ZERO, "ACCELERATE_DEEPSPEED_CONFIG_FILE": "split.json"}, {}, marks=needs_deepspeed),
        pytest.param(
            ["--full", "--tower", "--checkpointing"],
            {**ZERO, "ACCELERATE_DEEPSPEED_CONFIG_FILE": "split.json"},
            {"full": True, "tower": True},
            marks=needs_deepspeed,
        ),
    ],
    ids=[
        "whole",
        "shared",
        "shared full tower",
        "accelerate full",
        "zero 0",
        "zero 1",
        "zero 2",
        "zero 3",
        "zero 3 full tower",
    ],
)
def test_two_processes_end_where_one_does(
    tmp_path: Path, arguments: list[str], environment: dict[str, str], changes: dict[str, object]
) -> None:
    if "ACCELERATE_DEEPSPEED_CONFIG_FILE" in environment:
        environment = {**environment, "ACCELERATE_DEEPSPEED_CONFIG_FILE": split(tmp_path)}
    pairs, test = misaligned(tmp_path / "data", 6, 0), misaligned(tmp_path / "test", 3, 1)
    write_records(tmp_path / "data.jsonl", pairs)
    write_records(tmp_path / "test.jsonl", test)
    two(tmp_path, [*arguments, "--test", str(tmp_path / "test.jsonl"), "--save-every", "7"], environment)
    list(train(Run(pairs, "embedded", tmp_path / "one", settings_of(**changes), test=test)))
    expected, found = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert found.keys() == expected.keys()
    for name in (
        name for name in expected if not name.endswith("k_proj.bias")
    ):  # whose gradient is nothing but rounding
        torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=0)
    assert (tmp_path / "two" / LOG).read_text().count("\n") == STEPS
    assert '"accuracy"' in (tmp_path / "two" / DONE).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("sharing", WAYS)
def test_shared_weights_go_on_from_the_state_of_one_process(tmp_path: Path, sharing: str) -> None:
    """The state on disk holds whole tensors."""
    pairs, out = misaligned(tmp_path / "data", 6, 0), tmp_path / "two"
    write_records(tmp_path / "data.jsonl", pairs)
    run = Run(pairs, "embedded", out, settings_of(), save_every=6)
    list(islice(train(run), 7))
    assert (out / FILE).is_file()
    arguments, environment = way(sharing, tmp_path)
    two(tmp_path, ["--resume", *arguments], environment)
    list(train(Run(pairs, "embedded", tmp_path / "one", settings_of())))
    found = weights(out)
    for name, value in weights(tmp_path / "one").items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("sharing", WAYS[1:])
def test_one_process_goes_on_from_the_state_of_shared_weights(tmp_path: Path, sharing: str) -> None:
    data = tmp_path / "data.jsonl"
    write_records(data, misaligned(tmp_path / "data", 6, 0))
    partly(data, tmp_path / "one", 5)
    _, environment = way(sharing, tmp_path)
    together("tests.rewards.training.partly", str(data), str(tmp_path / "two"), "5", environment=environment)
    expected, found = (load_file(tmp_path / out / FILE) for out in ("one", "two"))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=0)
    for out in ("one", "two"):
        partly(data, tmp_path / out, 20, resume=True)
    expected, found = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("sharing", WAYS)
@pytest.mark.parametrize("backbone", ["qwen", "phi"])
def test_each_process_may_see_other_pictures(tmp_path: Path, backbone: str, sharing: str) -> None:
    """Pairs with one picture and with two, labels, and pictures of several crops, in passes of several records.

    Qwen's tower is frozen and runs in each process apart, its merger in all of them together; Phi's tower is trained.
    """
    if backbone == "qwen":
        base, options, changes = qwen_base(tmp_path), ["--full"], {"full": True}
    else:
        base, options, changes = (
            GOLDENS / "phi3v/base",
            ["--tower", "--num-crops", "4"],
            {"tower": True, "num_crops": 4},
        )
    pairs = misaligned(tmp_path / "data", 6, 0)
    for number, pair in enumerate(pairs):
        with Image.open(pair.chosen.image) as image:
            resized = image.resize((64 + 50 * number, 64))
        resized.save(pair.chosen.image)
    one = Pair(pairs[0].chosen, Side(pairs[0].chosen.image, pairs[1].chosen.prompt))
    labels = [Single(pair.chosen, float(number % 2)) for number, pair in enumerate(pairs[:3])]
    records = [*pairs, one, *labels]
    write_records(tmp_path / "data.jsonl", records)
    arguments, environment = way(sharing, tmp_path)
    few = ["--base", str(base), "--steps", "3", "--micro", "2", *options]
    two(tmp_path, [*few, *arguments], environment)
    list(train(Run(records, str(base), tmp_path / "one", settings_of(steps=3, micro=2, **changes))))
    found = weights(tmp_path / "two")
    for name, value in weights(tmp_path / "one").items():
        if not name.endswith("k_proj.bias"):  # whose gradient is nothing but rounding
            torch.testing.assert_close(found[name], value, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        (
            {**ZERO, "ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "cpu"},
            "Got offload_optimizer in DeepSpeed's configuration; expected none",
        ),
        ({**ZERO, "ACCELERATE_DEEPSPEED_CONFIG_FILE": "/nowhere.json"}, "DeepSpeed's configuration cannot be read"),
        ({**FSDP, "FSDP_VERSION": "1"}, "Got fsdp_version 1; expected 2"),
        ({**FSDP, "FSDP_OFFLOAD_PARAMS": "true"}, "Got fsdp_offload_params true; expected false"),
    ],
)
def test_other_ways_of_sharing_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], said: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RewardError, match=said):
        next(train(Run(misaligned(tmp_path, 1, 0), "embedded", tmp_path / "out", small())))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"optimizer": {"type": "Adam"}}, "Got optimizer .* train-reward has AdamW with --rate and --weight-decay"),
        ({"scheduler": {"type": "WarmupLR"}}, "Got scheduler .* train-reward has a cosine with --warmup"),
        ({"bf16": {"enabled": True}}, "Got bf16 .* pass --bf16"),
        ({"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}}}, "Got offload_param .* take more"),
        ({"zero_optimization": {"stage": "three"}}, "Got stage 'three' .* expected 0, 1, 2 or 3"),
        ({"zero_optimization": 3}, "DeepSpeed's configuration cannot be read"),
    ],
)
def test_what_deepspeed_is_not_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], said: str
) -> None:
    file = tmp_path / "zero.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": 2}, **changes}))
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(file))
    with pytest.raises(RewardError, match=said):
        configuration(small())


@pytest.mark.parametrize(("found", "said"), [(None, "is not installed"), ("0.19.7", "Got DeepSpeed 0.19.7")])
def test_deepspeed_must_be_there_and_new(monkeypatch: pytest.MonkeyPatch, found: str | None, said: str) -> None:
    def version(name: str) -> str:
        if found is None:
            raise PackageNotFoundError(name)
        return found

    monkeypatch.setattr("rewards.training.zero.version", version)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(RewardError, match=said):
        configuration(small())


@needs_deepspeed
def test_what_a_step_is_the_settings_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "zero.json"
    asked = {"train_batch_size": 64, "gradient_accumulation_steps": 8, "gradient_clipping": "auto", **SPLIT}
    file.write_text(json.dumps(asked))
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(file))
    found = configuration(small(batch=4, clip=0.5))
    assert found is not None
    assert (found["train_batch_size"], found["gradient_accumulation_steps"], found["gradient_clipping"]) == (4, 1, 0.5)
    assert found["zero_optimization"] == {"stage": 3, "stage3_param_persistence_threshold": 0}
