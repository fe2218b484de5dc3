"""A session of the official SDK that remembers which of the SDK's operations were called, and what their answers parsed to."""

import json
import re
import time
import urllib.request
from pathlib import Path

import mixpeek

Operation = tuple[str, str]
"""Method and path, its parameters nameless: `("GET", "/v1/buckets/{}")`."""


class Session:
    """Calls by name: `session("BucketsApi.get_bucket", "things")`. A class of the SDK that cannot read an answer raises."""

    def __init__(self, base, key):
        self.base, self.key = base, key
        self.client = mixpeek.ApiClient(mixpeek.Configuration(host=base))
        self.client.set_default_header("Authorization", f"Bearer {key}")
        self.seen = {}
        self.called = set()
        serialize = self.client.param_serialize

        def remembered(*args, **kwargs):
            self.called.add((kwargs["method"], nameless(kwargs["resource_path"])))
            return serialize(*args, **kwargs)

        self.client.param_serialize = remembered

    def use_namespace(self, namespace_id):
        self.client.set_default_header("X-Namespace", namespace_id)

    def __call__(self, operation, *args, empty=False, **kwargs):
        """Call one operation; `empty` when its answer has no body."""
        api, _, method = operation.partition(".")
        answer = getattr(getattr(mixpeek.api, api)(self.client), method)(*args, **kwargs)
        assert (answer is None) == empty, f"{operation}: the SDK read {answer!r}"
        self.seen[operation] = type(answer).__name__
        return answer

    def until_ended(self, read, *args):
        """Poll as the SDK's users do, until a status is terminal."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            answer = self(read, *args)
            if answer.status in ("COMPLETED", "FAILED", "CANCELED"):
                return answer
            time.sleep(0.05)
        raise AssertionError(f"{read} {args} has not ended: {answer.status}")

    def never_called(self):
        """The SDK's operations that the server has and nobody called."""
        with urllib.request.urlopen(f"{self.base}/openapi.json") as response:
            paths = json.load(response)["paths"]
        served = {(method.upper(), nameless(path)) for path, methods in paths.items() for method in methods}
        return sorted((sdk_operations() & served) - self.called)


def model(name, body):
    """A model of the SDK, made as its users make it from plain data."""
    return getattr(mixpeek, name).from_dict(body)


def nameless(path):
    return re.sub(r"\{[^}]*\}", "{}", path)


def sdk_operations() -> set[Operation]:
    """Every operation the SDK can call."""
    found = set()
    for file in Path(mixpeek.__file__).with_name("api").glob("*_api.py"):
        text = file.read_text()
        found |= {(method, nameless(path)) for method, path in re.findall(r"method='(\w+)',\s+resource_path='([^']+)'", text)}
    return found
