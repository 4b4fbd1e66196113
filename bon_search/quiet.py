"""A command speaks for itself: the chatter of the libraries below it is turned down."""

from __future__ import annotations


def quiet_libraries() -> None:
    """Show only errors of diffusers and transformers, and no progress bars but ours; never at import."""
    import diffusers.utils.logging
    import transformers.utils.logging

    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
