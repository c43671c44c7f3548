"""What was compiled is used when it belongs to the source that is here, and wanted; else Python runs it."""

from __future__ import annotations

import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import cache
from cache.accelerator import (
    FOLDER,
    PURE_VARIABLE,
    SOURCES,
    TOO_NEW,
    choose,
    compiled_name,
    source_of,
)
from cache.cluster.replication import owned
from cache.compiling import SUFFIX
from tests.compiled import ROOT, copy_package, missing, run

SOURCE: Final = "cache/cluster/replication/owned_reads.py"
ASK: Final = (
    "from cache.cluster.replication.owned import CHOICE as c; print(c.is_compiled, c.reason)"
)

compiler = pytest.mark.skipif(bool(missing()), reason=f"compiles: {missing()}")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with compiled modules, not to be changed."""
    folder = tmp_path_factory.mktemp("compiled")
    copy_package(folder)
    made = run(folder, "-m", "cache.compiling")
    assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture
def modules(compiled: Path) -> Iterator[Path]:
    """The folder of the compiled module; put back at the end, with the source."""
    folder, source = compiled / "cache" / FOLDER, compiled / SOURCE
    kept = {path: path.read_bytes() for path in (*folder.iterdir(), source)}
    yield folder
    for path in folder.iterdir():
        path.unlink()
    for path, content in kept.items():
        path.write_bytes(content)


def ask(folder: Path, **variables: str) -> str:
    """Return what a process that imports the copy says of its choice."""
    done = run(folder, "-c", ASK, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@compiler
def test_what_was_compiled_is_used(compiled: Path) -> None:
    """Nothing has to be set for it, and `cache.accelerated` tells."""
    done = run(compiled, "-c", "import cache; print(cache.accelerated)")

    assert "True" == done.stdout.strip()
    assert "True" == ask(compiled)


@compiler
@pytest.mark.parametrize(("value", "is_compiled"), [("1", False), ("0", True), ("", True)])
def test_a_variable_has_python_run_everything(
    compiled: Path, value: str, is_compiled: bool
) -> None:
    """`PEERCACHE_PURE=1`: for comparing, and when in doubt."""
    done = run(compiled, "-c", "import cache; print(cache.accelerated)", PEERCACHE_PURE=value)

    assert str(is_compiled) == done.stdout.strip()


@compiler
def test_a_changed_source_is_not_shadowed(compiled: Path, modules: Path) -> None:
    """One character is another digest, and that is the name that is asked for."""
    source = compiled / SOURCE
    source.write_text(source.read_text() + "\n")

    assert ask(compiled).startswith("False not compiled, or from another source")


@compiler
def test_another_source_under_the_name_of_this_one_does_not_load(
    compiled: Path, modules: Path
) -> None:
    """The name is compiled in: to rename the file is not enough."""
    source = compiled / SOURCE
    source.write_text(source.read_text() + "\n")
    [module] = modules.iterdir()
    module.rename(modules / f"{compiled_name(SOURCES[0], source.read_bytes())}{SUFFIX}")

    assert ask(compiled).startswith("False what was compiled does not load")


@compiler
def test_a_file_that_is_no_module_is_as_none(compiled: Path, modules: Path) -> None:
    """Of another platform, cut short, or anything else."""
    [module] = modules.iterdir()
    module.write_bytes(b"no module")

    assert ask(compiled).startswith("False what was compiled does not load")


@compiler
def test_without_the_source_nothing_compiled_is_used(compiled: Path, modules: Path) -> None:
    """There is nothing to compare its digest with."""
    run(compiled, "-m", "compileall", "-b", "-q", "cache/cluster/replication")
    (compiled / SOURCE).unlink()

    said = ask(compiled)
    for path in (compiled / "cache/cluster/replication").glob("*.pyc"):
        path.unlink()

    assert said.startswith("False no source to compare with")


@compiler
def test_compiling_again_leaves_one_module(compiled: Path, modules: Path) -> None:
    """What other sources left is taken away, and so is all on `--remove`."""
    before = {path.name for path in modules.iterdir()}
    source = compiled / SOURCE
    source.write_text(source.read_text() + "\n")

    assert run(compiled, "-m", "cache.compiling").returncode == 0
    after = {path.name for path in modules.iterdir()}
    assert (1, 1, set()) == (len(before), len(after), before & after)
    assert "True" == ask(compiled)

    assert run(compiled, "-m", "cache.compiling", "--remove").returncode == 0
    assert [] == list(modules.iterdir())


@pytest.mark.skipif(sys.version_info[:2] >= TOO_NEW, reason="refused for another reason here")
@pytest.mark.parametrize(
    ("variables", "remedy"),
    [
        ({"CC": "/nowhere/cc"}, "it takes a C compiler and the headers of Python"),
        ({"PYTHONPATH": "without"}, "install mypy[mypyc]>=2.4, setuptools>=65"),
    ],
)
def test_who_cannot_compile_says_what_it_takes(
    tmp_path: Path, variables: dict[str, str], remedy: str
) -> None:
    """One line, and what runs is as before."""
    copy_package(tmp_path)
    (tmp_path / "without" / "mypyc").mkdir(parents=True)
    (tmp_path / "without" / "mypyc" / "__init__.py").touch()

    failed = run(tmp_path, "-m", "cache.compiling", **variables)

    assert (1, 1) == (failed.returncode, len(failed.stderr.splitlines()))
    assert failed.stderr.startswith("cannot compile")
    assert remedy in failed.stderr
    assert "False" == ask(tmp_path).partition(" ")[0]


def build(folder: Path, to: Path, **variables: str) -> zipfile.ZipFile:
    """Return the wheel that the copy builds, without an environment of its own: nothing is downloaded."""
    for part in ("hatch_build.py", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / part, folder)
    done = run(folder, "-m", "hatchling", "build", "-t", "wheel", "-d", str(to), **variables)
    assert done.returncode == 0, done.stderr
    [wheel] = to.glob("*.whl")
    return zipfile.ZipFile(wheel)


def test_a_wheel_is_pure_unless_asked(tmp_path: Path) -> None:
    """It needs no compiler, fits everywhere, and takes along nothing that was compiled for development."""
    copy_package(tmp_path)
    (tmp_path / "cache" / FOLDER).mkdir()
    (tmp_path / "cache" / FOLDER / f"owned_reads{SUFFIX}").touch()

    with build(tmp_path, tmp_path / "wheels") as wheel:
        assert str(wheel.filename).endswith("-py3-none-any.whl")
        assert [] == [name for name in wheel.namelist() if FOLDER in name]


@compiler
def test_a_wheel_that_is_asked_for_is_accelerated(compiled: Path, tmp_path: Path) -> None:
    """Unpacked it is what it says, and its name says for which Python and platform."""
    with build(compiled, tmp_path, PEERCACHE_ACCELERATE="1") as wheel:
        wheel.extractall(tmp_path)

    assert f"-cp{sys.version_info.major}{sys.version_info.minor}-" in str(wheel.filename)
    assert "True" == ask(tmp_path)


def test_this_process_says_what_it_runs() -> None:
    """The name is public, a bool, and true."""
    source = choose(SOURCES[0])

    assert owned.OwnedReads is source.module.OwnedReads
    assert source.is_compiled is cache.accelerated is owned.accelerated
    assert bool(source.reason) is not source.is_compiled


def test_on_a_python_where_it_gains_nothing_python_runs_the_source(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not even when it was compiled there: awaited reads would be slower."""
    monkeypatch.delenv(PURE_VARIABLE, raising=False)

    found = choose(SOURCES[0], python=(3, 12))

    assert (False, "on Python 3.12 awaited reads would be slower compiled") == (
        found.is_compiled,
        found.reason.partition(";")[0],
    )


@pytest.mark.parametrize("name", SOURCES)
def test_what_is_compiled_can_be(name: str) -> None:
    """The compiler's decorator takes the place of two empty lines, and is only looked at while types are."""
    source = source_of(name).read_text()

    assert "\n\n\nclass " in source
    assert "import TYPE_CHECKING" in source
    assert "\n\n\n@" not in source
