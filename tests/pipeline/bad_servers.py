"""Servers of GCS, Azure, Box and Mux with seven files in pages of three, that can be told to answer wrongly."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

from tests.storage import box_stub, mux_stub
from tests.storage.box_stub import TOP, BoxStub
from tests.storage.mux_stub import MuxStub
from tests.storage.scripted import Answer, Asked
from tests.storage.worlds import account_file

NAMES = [f"f{number}" for number in range(7)]
PAGE = 3
SECRETS = ("hush", base64.b64encode(b"hush").decode(), "PRIVATE KEY", account_file()["private_key"][40:60])


class Call(NamedTuple):
    """What is asked for: a `token`, a page of a `list`ing (counted from 0), what is said of a file (`head`), or its bytes (`read`)."""

    kind: str
    page: int = 0
    name: str = ""


Ill = Callable[[Call], Answer | None]
"""What the server answers instead of the truth; None: the truth."""


def well(call: Call) -> Answer | None:
    return None


def on(kind: str, answer: Answer, *, page: int | None = None) -> Ill:
    return lambda call: answer if call.kind == kind and page in (None, call.page) else None


class Provider:
    """A server of seven files in pages of three; `ill` says what is wrong with it. `words` are the causes in its own terms."""

    provider: ClassVar[str]
    path: ClassVar[str] = "/"
    suffix: ClassVar[str] = ".txt"
    words: ClassVar[dict[str, str]]
    refusal: ClassVar[Answer]
    no_place: ClassVar[Answer]

    def __init__(self) -> None:
        self.names = list(NAMES)
        self.ill: Ill = well

    def answer(self, asked: Asked) -> Answer:
        return self.ill(self.call(asked)) or self.truth(asked)

    def connection(self, url: str) -> dict[str, Any]:
        raise NotImplementedError

    def call(self, asked: Asked) -> Call:
        raise NotImplementedError

    def truth(self, asked: Asked) -> Answer:
        raise NotImplementedError

    def page(self, names: list[str], token: str) -> Answer:
        """A listing's page, with a token for the next one."""
        raise NotImplementedError

    @property
    def paths(self) -> list[str]:
        return [name + self.suffix for name in self.names]

    def remove(self, name: str) -> None:
        self.names.remove(name)

    def listed_after(self, token: str) -> Answer:
        left = [name for name in self.names if name > token]
        return self.page(left[:PAGE], left[PAGE - 1] if len(left) > PAGE else "")


def answered(value: object, status: int = 200) -> Answer:
    return Answer(status, json.dumps(value).encode())


def page_after(token: str) -> int:
    return sum(name <= token for name in NAMES) // PAGE


class Google(Provider):
    provider = "gcs"
    words: ClassVar = {"refused": "grant the service account storage.objects.list", "no place": "the bucket does not exist"}
    refusal = answered({"error": {"message": "a@b does not have access"}}, 403)
    no_place = answered({"error": {"message": "The specified bucket does not exist."}}, 404)

    def connection(self, url: str) -> dict[str, Any]:
        return {"endpoint_url": url, "bucket": "b", "credentials": {"service_account_json": account_file()}}

    def call(self, asked: Asked) -> Call:
        if asked.path == "/token":
            return Call("token")
        if asked.path.endswith("/o"):
            return Call("list", page_after(self.after(asked)))
        name = asked.path.rpartition("/")[2].removesuffix(".txt")
        return Call("read" if "alt" in asked.query else "head", name=name)

    def truth(self, asked: Asked) -> Answer:
        call = self.call(asked)
        if call.kind == "token":
            return answered({"access_token": "t", "expires_in": 3600})
        if call.kind == "list":
            return self.listed_after(self.after(asked))
        if call.name not in self.names:
            return answered({"error": {"message": f"No such object: b/{call.name}"}}, 404)
        return Answer(body=call.name.encode()) if call.kind == "read" else answered(self.item(call.name))

    def page(self, names: list[str], token: str) -> Answer:
        return answered({"items": [self.item(name) for name in names], **({"nextPageToken": token} if token else {})})

    def after(self, asked: Asked) -> str:
        return asked.query.get("pageToken") or asked.query.get("startOffset", "").removesuffix(".txt\0")

    def item(self, name: str) -> dict[str, str]:
        return {"name": f"{name}.txt", "size": "2", "generation": "1", "md5Hash": f"of {name}"}


class Azure(Provider):
    provider = "azure"
    words: ClassVar = {"refused": "check account_key", "no place": "the container does not exist"}
    refusal = Answer(403, b"", {"x-ms-error-code": "AuthenticationFailed"})
    no_place = Answer(404, b"", {"x-ms-error-code": "ContainerNotFound"})

    def connection(self, url: str) -> dict[str, Any]:
        key = base64.b64encode(b"hush").decode()
        return {"endpoint_url": url, "container": "con", "credentials": {"account_name": "acc", "account_key": key}}

    def call(self, asked: Asked) -> Call:
        if "comp" in asked.query:
            return Call("list", page_after(asked.query.get("marker", "")))
        name = asked.path.rpartition("/")[2].removesuffix(".txt")
        return Call("head" if asked.method == "HEAD" else "read", name=name)

    def truth(self, asked: Asked) -> Answer:
        call = self.call(asked)
        if call.kind == "list":
            return self.listed_after(asked.query.get("marker", ""))
        if call.name not in self.names:
            return Answer(404, b"", {"x-ms-error-code": "BlobNotFound"})
        return Answer(200, call.name.encode(), {"ETag": f'"of {call.name}"'})

    def page(self, names: list[str], token: str) -> Answer:
        blob = "<Blob><Name>{0}.txt</Name><Properties><Etag>of {0}</Etag><Content-Length>2</Content-Length></Properties></Blob>"
        blobs = "".join(blob.format(name) for name in names)
        marker = f"<NextMarker>{token}</NextMarker>"
        return Answer(body=f"<EnumerationResults><Blobs>{blobs}</Blobs>{marker}</EnumerationResults>".encode())


class Box(Provider):
    provider = "box"
    path = TOP
    words: ClassVar = {"refused": "may not read this", "no place": f"Box folder {TOP} does not exist"}
    refusal = box_stub.refused(403, "access_denied_insufficient_permissions")
    no_place = box_stub.refused(404, "not_found")

    def __init__(self) -> None:
        super().__init__()
        self.stub = BoxStub()
        for name in NAMES:
            self.stub.put(f"{name}.txt".encode(), name.encode())
        self.ids = {file_id: file[1].removesuffix(".txt") for file_id, file in self.stub.files.items()}

    def connection(self, url: str) -> dict[str, Any]:
        return {"endpoint_url": url, "credentials": {**box_stub.APP, "enterprise_id": "1"}}

    def call(self, asked: Asked) -> Call:
        match asked.path.strip("/").split("/"):
            case ["oauth2", "token"]:
                return Call("token")
            case ["2.0", "folders", _, "items"]:
                return Call("list", int(asked.query.get("marker", 0)) // PAGE)
            case ["2.0", "files", file_id]:
                return Call("head", name=self.ids[file_id])
            case [*_, file_id]:
                return Call("read", name=self.ids.get(file_id, ""))
        raise AssertionError(asked)

    def truth(self, asked: Asked) -> Answer:
        return self.stub.answer(replace(asked, query={**asked.query, "limit": str(PAGE)}))

    def page(self, names: list[str], token: str) -> Answer:
        entries = [{"type": "file", "id": file_id, "name": f"{name}.txt"} for file_id, name in self.ids.items() if name in names]
        return answered({"entries": entries, "next_marker": token})

    def remove(self, name: str) -> None:
        super().remove(name)
        self.stub.delete(f"{name}.txt".encode())


class Mux(Provider):
    provider = "mux"
    path = "mux://"
    suffix = ".mp4"
    words: ClassVar = {"refused": "check access_token_id and access_token_secret", "no place": "404"}
    refusal = mux_stub.refused(401, "unauthorized")
    no_place = Answer(404, b"<html>")

    def __init__(self) -> None:
        super().__init__()
        self.stub = MuxStub()
        self.stub.bodies |= {name: name.encode() for name in NAMES}
        self.stub.add(*map(self.asset, NAMES))

    def connection(self, url: str) -> dict[str, Any]:
        return {"endpoint_url": url, "stream_url": url, "credentials": mux_stub.CREDENTIALS}

    def call(self, asked: Asked) -> Call:
        match asked.path.strip("/").split("/"):
            case ["video", "v1", "assets"]:
                return Call("list", int(asked.query.get("cursor", 0)) // PAGE)
            case ["video", "v1", "assets", name]:
                return Call("head", name=name)
        return Call("read", name=asked.path.split("/")[1].removeprefix("play"))

    def truth(self, asked: Asked) -> Answer:
        return self.stub.answer(replace(asked, query={**asked.query, "limit": str(PAGE)}))

    def page(self, names: list[str], token: str) -> Answer:
        return answered({"data": [self.asset(name) for name in names], "next_cursor": token})

    def asset(self, name: str) -> dict[str, Any]:
        return mux_stub.asset(name, mux_stub.rendition("high.mp4", name.encode()))

    def remove(self, name: str) -> None:
        super().remove(name)
        del self.stub.assets[name]
