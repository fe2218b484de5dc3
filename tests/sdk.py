"""The official Python SDK, in an environment of its own that is made once per test process."""

import os
import subprocess
import venv

import pytest

SDK = "mixpeek==1.3.783"


@pytest.fixture(scope="session")
def sdk_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter that has the SDK; `MIXPEEK_SDK_PYTHON` names one that is there."""
    given = os.environ.get("MIXPEEK_SDK_PYTHON")
    if given:
        return given
    home = tmp_path_factory.mktemp("sdk")
    venv.create(home, with_pip=True)
    python = str(home / "bin" / "python")
    installed = subprocess.run(
        [python, "-m", "pip", "install", "-q", SDK], capture_output=True, text=True, timeout=240, check=False
    )
    if installed.returncode != 0:
        pytest.skip(f"{SDK} cannot be installed: {installed.stderr.strip().splitlines()[-1:]}")
    return python
