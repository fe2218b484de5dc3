"""Read JSON answers of servers that are not trusted: a login page, another service's words, brackets without end."""

import json
from typing import Any

from urllib3.response import BaseHTTPResponse

from mixpeek_dagster.storage.http import read_all

LONGEST_ANSWER = 64 * 1024 * 1024

MALFORMED = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)
"""What it raises to read an answer that is not JSON, or of another shape."""


def read_json(response: BaseHTTPResponse, *, limit: int = LONGEST_ANSWER) -> Any:
    """The body, parsed. Raises one of `MALFORMED`."""
    return json.loads(read_all(response, limit=limit))
