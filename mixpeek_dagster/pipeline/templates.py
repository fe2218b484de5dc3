"""Texts with `{{path}}` in them, filled from a record."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any


def filled(template: Any, body: Mapping[str, Any]) -> Any:
    """The template with `{{path}}` replaced by what the envelope has there."""

    def value(match: re.Match[str]) -> str:
        found: Any = body
        for step in match[1].split("."):
            found = found.get(step) if isinstance(found, Mapping) else None
        return found if isinstance(found, str) else json.dumps(found)

    if isinstance(template, str):
        return re.sub(r"\{\{\s*([\w.]{1,200})\s*\}\}", value, template)
    if isinstance(template, Mapping):
        return {key: filled(inner, body) for key, inner in template.items()}
    return [filled(inner, body) for inner in template] if isinstance(template, Sequence) else template
