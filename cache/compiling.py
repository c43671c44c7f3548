"""Compiling what `cache.accelerator` names: `python -m cache.compiling`, in a checkout `./task accelerate`.

Makes `_compiled/` in this package, with one extension module for each source, for the Python that runs this;
those of other sources are taken away. `--remove` takes all away. Needs mypy, setuptools, a C compiler and
Python's headers. What is compiled is the very source, but for a decorator that lets classes that are not
compiled extend those that are; mypy is shown no other file, so that nothing else is compiled in.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from cache.accelerator import FOLDER, SOURCES, TOO_NEW, compiled_name, source_of, too_new
from cache.errors import ConfigError

REQUIREMENTS: Final = ("mypy[mypyc]>=2.4", "setuptools>=65")
"""What has to be installed."""

SUFFIX: Final[str] = sysconfig.get_config_var("EXT_SUFFIX")

EXTENSIBLE: Final = (
    "if TYPE_CHECKING: from mypy_extensions import mypyc_attr\n"
    "@mypyc_attr(allow_interpreted_subclasses=True)\n"
    "class "
)
"""Takes the place of the two empty lines before a class: the numbers of lines stay what they are."""

HERE: Final = Path(__file__).with_name(FOLDER)


def compile_sources(folder: Path = HERE) -> list[Path]:
    """Compile what can be into a folder, and take away what was compiled there before; return the files.

    Each is put in its place whole, so that a process that starts meanwhile finds it or does not.

    Raises:
        ConfigError: mypy, setuptools, a C compiler or Python's headers are missing, or this Python is too new
            to gain from it.
        SystemExit: mypy found an error, which it has written.
    """
    if sys.version_info[:2] >= TOO_NEW:
        raise ConfigError(f"cannot compile: {too_new(sys.version_info[:2])}")
    names: list[str] = []
    folder.mkdir(parents=True, exist_ok=True)
    for name in SOURCES:
        source = source_of(name).read_bytes()
        compiled = compiled_name(name, source)
        names.append(f"{compiled}{SUFFIX}")
        with tempfile.TemporaryDirectory(prefix="compiling-") as scratch:
            built = _compile(compiled, source.decode(), Path(scratch))
            shutil.copy(built, folder / f"{compiled}.new")
        (folder / f"{compiled}.new").replace(folder / names[-1])
    remove(folder, but=names)
    return [folder / name for name in names]


def remove(folder: Path = HERE, but: Sequence[str] = ()) -> None:
    """Take away what was compiled for this Python, except the files of those names."""
    for path in folder.glob(f"*{SUFFIX}"):
        if path.name not in but:
            path.unlink()


def _compile(name: str, source: str, scratch: Path) -> Path:
    """Compile a source under a name, in an empty folder; return the extension module."""
    try:  # Where nothing is compiled they may be missing.
        from mypyc.build import mypycify  # noqa: PLC0415
        from setuptools import Distribution  # noqa: PLC0415
        from setuptools.errors import BaseError, CCompilerError  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(f"cannot compile: {error}; install {', '.join(REQUIREMENTS)}") from error

    file = f"{name}.py"
    (scratch / file).write_text(source.replace("\n\n\nclass ", f"\n{EXTENSIBLE}"))
    with contextlib.chdir(scratch):
        flags = ["--config-file=", "--follow-imports=skip", "--ignore-missing-imports"]
        modules = mypycify([*flags, file], opt_level="3", debug_level="0", target_dir="made")
        command: Any = Distribution({"ext_modules": modules}).get_command_obj("build_ext")
        # Any: setuptools has no types.
        command.build_lib, command.build_temp = "built", "objects"
        command.ensure_finalized()
        try:
            command.run()
        except (BaseError, CCompilerError) as error:
            raise ConfigError(
                f"cannot compile {name}: {error}; it takes a C compiler and the headers of Python"
            ) from error
    return scratch / "built" / f"{name}{SUFFIX}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m cache.compiling")
    parser.add_argument("--remove", action="store_true", help="go back to pure Python")
    if parser.parse_args(arguments).remove:
        remove()
        return
    try:
        made = compile_sources()
    except ConfigError as error:
        parser.exit(1, f"{error}\n")
    for path in made:
        print(f"compiled {path}")  # noqa: T201


if __name__ == "__main__":
    main()
