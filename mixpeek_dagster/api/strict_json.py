"""JSON as this API takes it: what is ambiguous, or what no database holds, is refused before any model sees it."""

import json
from typing import Any

from fastapi.exceptions import RequestValidationError

from mixpeek_dagster.errors import Invalid
from mixpeek_dagster.models.values import MAX_DEPTH, check_json


def parse(body: bytes) -> Any:
    """The value of a body.

    Raises:
        RequestValidationError: not JSON, or not UTF-8.
        Invalid: a key twice in one object, nested too deep, or a value that `check_json` refuses.
    """
    try:
        value = json.loads(body.decode(), object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise _not_json(f"Not JSON: {error.msg}", at=error.pos) from error
    except UnicodeDecodeError as error:
        raise _not_json("Not JSON: the body is not UTF-8", at=error.start) from error
    except RecursionError as error:
        raise Invalid(f"The body is nested deeper than {MAX_DEPTH} levels.") from error
    except ValueError as error:  # a number of more digits than Python converts
        raise _not_json("A number in the body has too many digits", at=0) from error
    check_json(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Invalid(f"An object in the body has the key {twice[:100]!r} more than once; which one counts is not defined.")
    return found


def _not_json(message: str, *, at: int) -> RequestValidationError:
    return RequestValidationError([{"type": "json_invalid", "loc": ("body", at), "msg": message, "input": {}}])
