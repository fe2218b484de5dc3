"""A real browser for the screenshots. `python -m tests.browser` installs Debian's Chromium where it is missing and may be installed."""

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find() -> str | None:
    """The browser's path, None when there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def main() -> None:
    if find() or os.geteuid() != 0 or not shutil.which("apt-get"):
        return
    print("installing chromium for the browser tests", flush=True)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "timeout": 600}
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"]):
        try:
            subprocess.run(command, check=False, env=environment, **quiet)  # type: ignore[call-overload]
        except subprocess.TimeoutExpired:
            print("chromium could not be installed in time; its tests will be skipped", file=sys.stderr)
            return


if __name__ == "__main__":
    main()
