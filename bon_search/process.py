"""How a command treats its own process: it turns down the chatter of the libraries, and its threads where they hurt."""

from __future__ import annotations

import os


def quiet_libraries() -> None:
    """Show only errors of diffusers and transformers, and no progress bars but ours; never at import."""
    import diffusers.utils.logging
    import transformers.utils.logging

    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.set_verbosity_error()
        library.disable_progress_bar()


def one_thread() -> None:
    """Compute on one CPU thread, unless the environment says otherwise.

    For models as small as the embedded one: its matrices are so tiny that threads wait for each other more than they
    work, on a busy machine many times more.
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
