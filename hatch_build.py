"""The build hook of hatchling: with `PEERCACHE_ACCELERATE=1` a wheel has compiled modules in it.

Without it, and for editable installs, nothing is compiled, nothing is needed for it, and the wheel fits
every Python and platform.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).resolve().parent))

from cache.accelerator import FOLDER
from cache.compiling import REQUIREMENTS, compile_sources


class Accelerate(BuildHookInterface[BuilderConfig]):
    """Compiles into a folder of its own, and takes the files from there into the wheel."""

    def dependencies(self) -> list[str]:
        """Return what is installed before the build."""
        return list(REQUIREMENTS) if self._is_asked() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # Any: of hatchling
        """Compile, and say that the wheel is for this Python and platform only."""
        if version != "standard" or not self._is_asked():
            return
        self._folder = tempfile.TemporaryDirectory(prefix="accelerate-")
        for path in compile_sources(Path(self._folder.name)):
            build_data["force_include"][str(path)] = f"cache/{FOLDER}/{path.name}"
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Take the folder away."""
        if "_folder" in self.__dict__:
            self._folder.cleanup()

    def _is_asked(self) -> bool:
        return os.environ.get("PEERCACHE_ACCELERATE", "") not in ("", "0")
