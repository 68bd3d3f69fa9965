"""Keep compiled programs for the next process."""

from __future__ import annotations

import os
from pathlib import Path


def keep_programs() -> None:
    """Let JAX keep what it compiles in the user's cache directory, unless it was told where, or cannot write there.

    The directory is `jaxflow` in `XDG_CACHE_HOME`, or in `~/.cache`. `JAX_COMPILATION_CACHE_DIR` names another one, and
    `JAX_ENABLE_COMPILATION_CACHE=false` keeps nothing.
    """
    import jax

    if getattr(jax.config, "jax_compilation_cache_dir", None) is not None:
        return
    try:
        directory = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxflow"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no home, or none that can be written
        return
    if not os.access(directory, os.W_OK):
        return
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
