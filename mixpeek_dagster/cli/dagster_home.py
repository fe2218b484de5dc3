"""Where Dagster keeps its own state when nobody said so."""

import os
from pathlib import Path

from mixpeek_dagster.settings import Settings

_DEFAULT = "telemetry: {enabled: false}\nnux: {enabled: false}\n"


def prepare_dagster_home(settings: Settings) -> Path:
    """Set DAGSTER_HOME, when it is unset, to a folder beside the catalog; must run before Dagster is imported."""
    given = os.environ.get("DAGSTER_HOME")
    if given:
        os.environ.setdefault("DAGSTER_STATE", str(Path(given) / ".dagster"))  # what the repository's dagster.yaml asks for
        return Path(given)
    home = settings.home / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "dagster.yaml").exists():
        (home / "dagster.yaml").write_text(_DEFAULT)
    os.environ["DAGSTER_HOME"] = str(home)
    return home
