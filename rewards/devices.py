"""Where a model runs and in what numbers: the two options that every reward with weights has."""

import torch

from rewards.errors import RewardError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def dtype_of(dtype: str | torch.dtype) -> torch.dtype:
    """The number type of that name: "float32", "bfloat16" or "float16".

    Raises:
        RewardError: another one.
    """
    number = _DTYPES.get(str(dtype).removeprefix("torch."))
    if number is None:
        raise RewardError(f"Got dtype {str(dtype)!r}; expected one of {', '.join(_DTYPES)}.")
    return number


def device_of(device: str | torch.device | None) -> str | torch.device:
    """The device, or if None a GPU where there is one, else the CPU.

    Raises:
        RewardError: it cannot be used.
    """
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise RewardError(f"Device {str(place)!r} cannot be used: {error}; expected 'cpu', 'cuda' or 'mps'.") from error
    return place
