"""Where a checkpoint lies: a folder, or that of a repository for one perspective: alignment, fidelity, safety, overall.

The published repository has one folder for each perspective and backbone; how they are called is read from its list of
files, not assumed.
"""

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from rewards.errors import CheckpointError
from rewards.llava.checkpoint import EMBEDDED
from rewards.llava.families import EMBEDDED_NAME
from rewards.llava.official import SETTINGS

REPOSITORY = "smz8599/LLaVA-Reward"
_SAME = (  # words that the paper, its code and its folders use for one thing
    ("alignment", "align"),
    ("fidelity", "artifact", "artifacts", "quality"),
    ("safety", "safe", "unsafe", "unsafebench"),
    ("overall", "ranking", "rank", "general", "steering"),
    ("phi", "phi3", "phi3v", "phi35", "phi3.5", "phi35v", "phi3.5v"),
    ("qwen", "qwen2", "qwen25", "qwen2.5", "qwen25vl", "qwen2.5vl", "qwenvl"),
)
_PREFIX = "llava-reward:"


def locate(checkpoint: str | Path, repository: str | Path = REPOSITORY) -> Path:
    """The folder of a checkpoint, downloaded if need be.

    Args:
        checkpoint: that folder, or one with a single checkpoint below it; "llava-reward:alignment", or other words for
            `find_checkpoint`; "llava-reward:embedded-fidelity", which comes with the package; on the hub "owner/name",
            or a folder in it, "owner/name/folder".
        repository: where such words are looked up; as for `find_checkpoint`.

    Raises:
        CheckpointError: there is no such folder or name, or several checkpoints may be meant.
    """
    if Path(checkpoint).is_dir():
        below = [] if any((Path(checkpoint) / name).exists() for name in _SIGNS) else checkpoint_folders(checkpoint)
        return find_checkpoint("", checkpoint) if below else Path(checkpoint)
    name = str(checkpoint)
    if not name.startswith(_PREFIX):
        return find_checkpoint("", name)
    words = name.removeprefix(_PREFIX)
    return find_embedded(words) if is_embedded(words) else find_checkpoint(words, repository)


_SIGNS = ("config.json", SETTINGS, "lora", "reward.json")


def is_embedded(words: str) -> bool:
    """Whether what stands behind the colon names a checkpoint that comes with the package: "embedded-fidelity"."""
    return _words(words)[:1] == [EMBEDDED_NAME]


def find_embedded(words: str) -> Path:
    """The folder of a checkpoint that comes with the package.

    Args:
        words: "embedded" or "embedded-alignment" for the default one, or another perspective, "embedded-fidelity".

    Raises:
        CheckpointError: there is none of that name.
    """
    rest = " ".join(_words(words)[1:])
    return EMBEDDED if not rest or rest in _names("alignment") else find_checkpoint(rest, EMBEDDED)


def is_on_hub(checkpoint: str | Path | None) -> bool:
    """Whether it is nothing on this machine, but a name that the hub may know: owner/name, or owner/name/folder."""
    if not isinstance(checkpoint, str) or Path(checkpoint).exists():
        return False
    return bool(re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)+", checkpoint))


def find_checkpoint(words: str, repository: str | Path = REPOSITORY) -> Path:
    """The folder of the one checkpoint whose path has all `words`, downloaded if need be.

    Args:
        words: for example "alignment", or "alignment-qwen" where several backbones are there; or the folder's path;
            nothing where there is only one, or a full fine-tune.
        repository: name on the hub, with a folder in it or without, or a folder with checkpoints below it.

    Raises:
        CheckpointError: none or several match; the message says what there is.
    """
    if not Path(repository).is_dir():
        if not is_on_hub(str(repository)):
            raise CheckpointError(
                f"There is no folder {str(repository)!r}; expected a checkpoint's folder, a name on the hub such as "
                "'owner/name', or a perspective such as 'llava-reward:alignment'."
            )
        owner, name, *below = str(repository).split("/")
        repository, words = f"{owner}/{name}", "/".join([*below, words]).strip("/")
    found = checkpoint_folders(repository)
    if not found and not words:  # a full fine-tune has no settings of its own
        return _local(repository, ".")
    chosen = [folder for folder in found if folder == words.strip("/")] or (matching(words, found) if words else found)
    if len(chosen) == 1:
        return _local(repository, chosen[0])
    listed = ", ".join(chosen or found) or "no folder with reward_config.yaml"
    if not chosen:
        raise CheckpointError(f"{words!r} matches no checkpoint in {str(repository)!r}, which holds {listed}.")
    said = f"{words!r} matches {len(chosen)} checkpoints in" if words else f"There are {len(chosen)} checkpoints in"
    raise CheckpointError(
        f"{said} {str(repository)!r}: {listed}; add a word, as in 'llava-reward:alignment-phi', or give the folder's "
        "whole path behind the colon."
    )


def checkpoint_folders(repository: str | Path) -> list[str]:
    """Paths in a repository, or below a folder, that hold checkpoints; sorted.

    Raises:
        CheckpointError: there is no such repository.
    """
    root = Path(repository)
    if root.is_dir():
        files: Iterable[str] = (path.relative_to(root).as_posix() for path in root.rglob(SETTINGS))
    else:
        files = _files_on_hub(str(repository))
    paths = (PurePosixPath(file) for file in files)
    return sorted(str(path.parent) for path in paths if path.name == SETTINGS)


def matching(words: str, folders: Iterable[str]) -> list[str]:
    """Those of `folders` whose paths have every word of `words`, whichever name for it they use.

    Where no path has them as words of its own, parts of words count: "phi" in "PhiAlignment".
    """
    wanted, folders = [_names(word) for word in _words(words)], list(folders)
    exact = [folder for folder in folders if wanted and all(names & set(_words(folder)) for names in wanted)]
    return exact or [
        folder
        for folder in folders
        if wanted and all(any(name in " ".join(_words(folder)) for name in names) for names in wanted)
    ]


def _words(path: str) -> list[str]:
    """Words of a path in small letters; the project's own name, which has a backbone's in it, left out."""
    return re.findall(r"[a-z0-9.]+", re.sub(r"llava[-_ ]?reward", "", path.lower()))


def _names(word: str) -> set[str]:
    return next((set(same) for same in _SAME if word in same), {word})


def _files_on_hub(repository: str) -> list[str]:
    from huggingface_hub import list_repo_files, snapshot_download

    try:
        return list_repo_files(repository)
    except Exception as error:  # the hub client has a class for each way to fail
        try:
            cached = Path(snapshot_download(repository, local_files_only=True))
        except Exception:  # nor was it ever downloaded
            raise _unreachable(repository, error) from error
        return [path.relative_to(cached).as_posix() for path in cached.rglob("*")]


def _local(repository: str | Path, folder: str) -> Path:
    if Path(repository).is_dir():
        return Path(repository) / folder
    from huggingface_hub import snapshot_download

    try:
        return (
            Path(snapshot_download(str(repository), allow_patterns=["*" if folder == "." else f"{folder}/*"])) / folder
        )
    except Exception as error:
        raise _unreachable(str(repository), error) from error


def _unreachable(repository: str, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"There is no folder {repository!r}, and the hub gave nothing of that name ({type(error).__name__}); check the "
        "name and the network, or download it and give its folder."
    )
