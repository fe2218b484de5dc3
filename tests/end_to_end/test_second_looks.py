"""A file that is rewritten between listing and reading, in the process of `mixpeek-dagster run`."""

from pathlib import Path

from tests.end_to_end.home import Home

REWRITES = """
import os
from pathlib import Path
from mixpeek_dagster.definitions.one_pass import Watcher, run_once
from mixpeek_dagster.pipeline.warehouse import Warehouse

def rewrite(*_):
    Path(os.environ["FILE"]).write_text("changed before it was read")

report = run_once(Warehouse.from_env(), now=True, watcher=Watcher(listed=rewrite))
print([(one.status.value, one.documents_written) for one in report.batches], report.ok)
"""


def test_one_command_ends_with_what_a_file_was_changed_to(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for name in ("a.txt", "b.txt"):
        (home.files / name).write_text("as it was listed")
    home.stub_library()
    printed = home.python(REWRITES, FILE=str(home.files / "a.txt"))
    assert printed.splitlines()[-1] == "[('COMPLETED', 1), ('COMPLETED', 1)] True"
    with home.warehouse.catalog.reading() as records:
        (collection,) = records.collections.all()
        sizes = [one.payload["size"] for one in records.documents.scan(collection.collection_id)]
    assert sorted(sizes) == [len("as it was listed"), len("changed before it was read")]
    assert home.command("verify").returncode == 0
