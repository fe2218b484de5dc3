"""The shape of the repository: who imports whom, what an import costs, and that pages and code tell the same."""

import ast
import fnmatch
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import mixpeek_dagster
from mixpeek_dagster import errors, settings
from mixpeek_dagster.errors import MixpeekError

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "mixpeek_dagster"

HOMES = {
    "dagster": ["definitions/*", "launcher/*"],
    "fastapi": ["api/*"],
    "starlette": ["api/*"],
    "uvicorn": ["api/*", "cli/*"],
    "sqlalchemy": ["catalog/*"],
    "alembic": ["catalog/migrations/*"],
    "typer": ["cli/*"],
    "rich": ["cli/*"],
    "weaviate": ["vectors/weaviate*.py"],
    "onnxruntime": ["extractors/onnx.py"],
    "onnx": ["extractors/graphs.py"],
    "tokenizers": ["extractors/onnx.py"],
    "PIL": ["extractors/pictures.py"],
    "boto3": ["storage/*s3*.py"],
    "botocore": ["storage/*s3*.py"],
    "google": ["storage/*gcs*.py"],
    "azure": ["storage/*azure*.py"],
    "fsspec": ["storage/*.py", "extractors/models.py"],
}
"""Third-party package → the only files that may import it."""


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports(file: Path) -> Iterator[str]:
    """Every imported module of a file, wherever in it the import stands."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield node.module or ""


def is_home(file: Path, package: str) -> bool:
    place = file.relative_to(PACKAGE).as_posix()
    return any(fnmatch.fnmatch(place, home) for home in HOMES[package])


def test_imports_run_downward_only() -> None:
    program = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_every_package_has_its_layer() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract for contract in contracts if contract["type"] == "layers"]
    assert layers["exhaustive"]
    named = {name.strip(" ()") for layer in layers["layers"] for name in re.split(r"[|:]", layer)}
    found = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()} - {"__init__"}
    assert found <= named


def test_a_third_party_package_is_imported_in_its_home_only() -> None:
    strangers = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in modules()
        for name in imports(file)
        if (package := name.partition(".")[0]) in HOMES and not is_home(file, package)
    ]
    assert strangers == []


@pytest.mark.parametrize(
    "module",
    [
        "mixpeek_dagster",
        "mixpeek_dagster.errors",
        "mixpeek_dagster.plugins",
        "mixpeek_dagster.models.batches",
        "mixpeek_dagster.cli",
        "mixpeek_dagster.storage.local",
    ],
)
def test_an_import_is_cheap(module: str) -> None:
    dear = {
        "dagster",
        "weaviate",
        "onnxruntime",
        "onnx",
        "boto3",
        "botocore",
        "pandas",
        "fastapi",
        "alembic",
        "PIL",
        "tokenizers",
    }
    if module != "mixpeek_dagster.cli":
        dear |= {"sqlalchemy"}
    program = f"import sys, {module}; print(*sorted(set(sys.modules) & {dear!r}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("word", ["utils", "util", "helpers", "helper", "common", "misc", "core", "base", "manager", "service"])
def test_no_file_is_named_after_nothing(word: str) -> None:
    assert [file.name for file in PACKAGE.rglob("*") if file.stem == word] == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [str(file.relative_to(ROOT)) for file in modules() if not ast.get_docstring(ast.parse(file.read_text()))]
    assert silent == []


def test_no_file_of_the_package_is_longer_than_four_hundred_lines() -> None:
    long = {file.name for file in modules() if len(file.read_text().splitlines()) > 400}
    assert long <= {"tables.py"}, "a list of all tables may be as long as there are tables"


def test_dagster_files_do_not_postpone_annotations() -> None:
    assert [file for file in (PACKAGE / "definitions").glob("*.py") if "__future__" in imports(file)] == []


def tree(root: type[MixpeekError] = MixpeekError) -> Iterator[type[MixpeekError]]:
    for one in root.__subclasses__():
        if one.__module__ == errors.__name__:
            yield one
            yield from tree(one)


def test_every_error_code_is_in_the_docs_with_its_status() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| (\d{3}) \|", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE)
    raised = {MixpeekError.code: MixpeekError.status} | {one.code: one.status for one in tree()}
    assert {code: int(status) for code, status in rows} == raised


def test_every_error_has_a_code_of_its_own_and_stands_in_the_tree() -> None:
    drawn = re.findall(r"── (\w+)", errors.__doc__ or "")
    assert sorted(drawn) == sorted(one.__name__ for one in tree())
    codes = [one.code for one in tree()]
    assert len(codes) == len(set(codes))


def test_the_changelog_begins_with_this_version() -> None:
    versions = re.findall(r"^## \[?(\d[^\]\s]*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == mixpeek_dagster.__version__


def test_credentials_cannot_name_any_setting_of_the_server() -> None:
    read = set(re.findall(r'environ\.get\(\s*"(MIXPEEK_\w+)"', Path(settings.__file__).read_text()))
    assert read
    assert read == settings.OWN_VARIABLES


def test_every_setting_is_described() -> None:
    described = set(re.findall(r"`(MIXPEEK_\w+)`", settings.Settings.__doc__ or ""))
    assert described >= settings.OWN_VARIABLES


def test_nothing_names_a_path_of_somebodys_machine() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    suspicious = re.compile(rb"/(?:home|Users)/[a-z]+/|/wor" + rb"k/(?:main|wt|shared)")
    texts = [
        ROOT / name for name in listed.stdout.decode().split("\0") if name.endswith((".py", ".md", ".toml", ".yaml", ".yml"))
    ]
    assert [str(file.relative_to(ROOT)) for file in texts if file.exists() and suspicious.search(file.read_bytes())] == []
