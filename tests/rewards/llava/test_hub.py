"""Which folder a perspective names, in a folder of checkpoints and in a repository whose list of files is at hand."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from rewards import load_reward
from rewards.errors import CheckpointError
from rewards.llava.hub import REPOSITORY, checkpoint_folders, find_checkpoint, locate, matching
from rewards.llava.official import SETTINGS
from rewards.llava.published import PublishedReward
from tests.rewards.llava.cases import GOLDENS

FOLDERS = [
    "alignment/llavareward_phi_alignment",
    "alignment/llavareward_qwen_alignment",
    "fidelity/llavareward_phi_artifact",
    "safety/llavareward_phi_safety",
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """One true checkpoint under several names."""
    for folder in FOLDERS:
        shutil.copytree(GOLDENS / "phi3v/bt_ca", tmp_path / folder)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("alignment", FOLDERS[:2]),
        ("alignment-phi", FOLDERS[:1]),
        ("Qwen:alignment", FOLDERS[1:2]),
        ("fidelity", FOLDERS[2:3]),
        ("quality", FOLDERS[2:3]),
        ("safety", FOLDERS[3:]),
        ("alignment-llava", []),  # a backbone, which the project's own name is not
        ("overall", []),
    ],
)
def test_words_and_what_they_match(words: str, expected: list[str]) -> None:
    assert matching(words, FOLDERS) == expected


def test_a_reward_by_its_perspective(tree: Path) -> None:
    reward: Any = load_reward("llava-reward:safety", checkpoint=tree, base=GOLDENS / "phi3v/base", device="cpu")
    assert isinstance(reward, PublishedReward)
    assert reward.checkpoint.folder == tree / FOLDERS[3]


@pytest.mark.parametrize(
    ("words", "folders", "expected"),
    [
        ("alignment-phi", ["PhiAlignment", "QwenAlignment"], ["PhiAlignment"]),
        ("safety-phi", ["phi35_safety", "qwen2.5vl_safety"], ["phi35_safety"]),
        ("phi", ["phi/a", "philosophy/b"], ["phi/a"]),
        ("alignment", ["safety/phi"], []),
    ],
)
def test_words_in_other_spellings(words: str, folders: list[str], expected: list[str]) -> None:
    assert matching(words, folders) == expected


def test_where_a_checkpoint_lies(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder, one with a single checkpoint below it, a perspective, and a path on the hub."""
    import huggingface_hub

    assert locate(tree / FOLDERS[0]) == tree / FOLDERS[0]
    assert locate((tree / FOLDERS[3]).parent) == tree / FOLDERS[3]
    assert locate("llava-reward:safety", tree) == tree / FOLDERS[3]
    with pytest.raises(CheckpointError, match="There are 4 checkpoints in"):
        locate(tree)
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda name: [f"{folder}/{SETTINGS}" for folder in FOLDERS])
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, allow_patterns: str(tree))
    assert locate("llava-reward:safety") == tree / FOLDERS[3]
    assert locate(f"some/rewards/{FOLDERS[1]}") == tree / FOLDERS[1]
    reward: Any = load_reward(
        "llava-reward", checkpoint=f"some/rewards/{FOLDERS[3]}", base=GOLDENS / "phi3v/base", device="cpu"
    )
    assert reward.checkpoint.folder == tree / FOLDERS[3]
    (tmp_path / "empty").mkdir()
    assert locate(tmp_path / "empty") == tmp_path / "empty"  # empty: what is missing, the reader says


@pytest.mark.parametrize("name", ["nowhere", "/no/such/folder", "./here", "llava-reward", "~/models/mine"])
def test_names_that_mean_nothing(name: str) -> None:
    message = f"There is no folder '{name}'; expected a checkpoint's folder, a name"
    with pytest.raises(CheckpointError, match=message):
        locate(name)
    with pytest.raises(CheckpointError, match=message):
        find_checkpoint("safety", name)


def test_a_folder_by_its_path(tree: Path) -> None:
    assert checkpoint_folders(tree) == FOLDERS
    assert find_checkpoint(FOLDERS[1], tree) == tree / FOLDERS[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("alignment", r"matches 2 checkpoints .*_phi_alignment, .*_qwen_alignment; add a word"),
        ("beauty", r"matches no checkpoint .*llavareward_phi_artifact"),
    ],
)
def test_none_or_several_are_listed(tree: Path, words: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_reward("llava-reward", variant=words, checkpoint=tree)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no folder with reward_config\.yaml"):
        find_checkpoint("safety", tmp_path)


def test_only_the_folder_asked_for_is_downloaded(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked = []

    def download(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(tree)

    files = [path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()]
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda name: files)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert find_checkpoint("safety") == tree / FOLDERS[3]
    assert asked == [(REPOSITORY, [f"{FOLDERS[3]}/*"])]


def test_a_name_on_the_hub_without_a_word(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is downloaded before it is clear what."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda name: [f"{folder}/{SETTINGS}" for folder in FOLDERS])
    with pytest.raises(CheckpointError, match="There are 4 checkpoints in 'some/rewards'"):
        load_reward("llava-reward", checkpoint="some/rewards")
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda name: [f"{FOLDERS[0]}/{SETTINGS}"])
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, allow_patterns: str(tree))
    reward: Any = load_reward("llava-reward", checkpoint="some/rewards", base=GOLDENS / "phi3v/base", device="cpu")
    assert reward.checkpoint.folder == tree / FOLDERS[0]
    full = str(GOLDENS / "phi3v/bt_ca_full")
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda name: ["config.json", "model.safetensors"])
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, allow_patterns: full)
    tuned: Any = load_reward("llava-reward", checkpoint="some/rewards", device="cpu")
    assert tuned.checkpoint.full


def test_without_a_network_what_was_downloaded_is_listed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def fail(name: str) -> list[str]:
        raise ConnectionError

    monkeypatch.setattr(huggingface_hub, "list_repo_files", fail)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **options: str(tree))
    assert find_checkpoint("safety", "some/rewards") == tree / FOLDERS[3]


def test_a_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def fail(name: str) -> list[str]:
        raise ConnectionError

    monkeypatch.setattr(huggingface_hub, "list_repo_files", fail)
    with pytest.raises(CheckpointError, match=r"ConnectionError\); check the name and the network, or download"):
        load_reward("llava-reward:safety")
