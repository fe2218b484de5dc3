"""A server that answers like S3, from templates: `python -m tests.benchmarks.canned_s3 KEYS` prints its URL and serves until killed.

A process of its own, so that it costs the measured one nothing but the reading. Keys ascend; page N ends with token N.
"""

import re
import socketserver
import sys
from datetime import UTC, datetime
from urllib.parse import parse_qs, unquote, urlsplit

PAGE = 1000
BODY_BYTES = 512 * 1024 * 1024
BUCKET = "canned"
_PIECE = bytes(range(256)) * 4096


def key_of(number: int) -> str:
    return f"library/2026/{number // 10_000:04d}/document {number:08d}.txt"


def page_xml(first: int, keys: int, limit: int) -> bytes:
    """The listing of keys `first` up to `keys`, at most `limit` of them, in the layout of AWS."""
    last = min(first + limit, keys)
    more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{last}</NextContinuationToken>"
    items = "".join(
        f"<Contents><Key>{key_of(n).replace(' ', '+')}</Key><LastModified>{_time(n)}</LastModified>"
        f"<ETag>&quot;{n * 2654435761 % 2**64:032x}&quot;</ETag><ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm>"
        f"<ChecksumType>FULL_OBJECT</ChecksumType><Size>{100 + n % 900}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        for n in range(first, last)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>{BUCKET}</Name><Prefix>library/</Prefix><KeyCount>{last - first}</KeyCount><MaxKeys>{limit}</MaxKeys>"
        f"<EncodingType>url</EncodingType>{more if last < keys else '<IsTruncated>false</IsTruncated>'}{items}</ListBucketResult>"
    ).encode()


def _time(number: int) -> str:
    return datetime.fromtimestamp(1_780_000_000 + number // 7, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def first_of(query: dict[str, list[str]]) -> int:
    """The number of the first key that a listing asks for."""
    if "continuation-token" in query:
        return int(query["continuation-token"][0])
    found = re.search(r"document (\d+)", query.get("start-after", [""])[0])
    return int(found[1]) + 1 if found else 0


class _Handler(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self) -> None:
        while line := self.rfile.readline():
            while self.rfile.readline() not in (b"\r\n", b""):
                pass
            method, target, _ = line.decode().split(" ", 2)
            parts = urlsplit(target)
            if "list-type" in parts.query:
                query = parse_qs(parts.query)
                limit = int(query.get("max-keys", [str(PAGE)])[0])
                self._answer(page_xml(first_of(query), self.server.keys, limit), "application/xml")  # type: ignore[attr-defined]
            elif unquote(parts.path).endswith("/large.bin"):
                self._large(method)
            else:
                self._answer(b"" if method == "HEAD" else b"x" * 100, "text/plain")

    def _answer(self, body: bytes, kind: str) -> None:
        self.wfile.write(_head(len(body), kind) + body)

    def _large(self, method: str) -> None:
        self.wfile.write(_head(BODY_BYTES, "application/octet-stream"))
        if method == "GET":
            for _ in range(BODY_BYTES // len(_PIECE)):
                self.wfile.write(_PIECE)


def _head(size: int, kind: str) -> bytes:
    return (
        f'HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {size}\r\nETag: "canned"\r\n'
        "Last-Modified: Sun, 22 Nov 2026 00:00:00 GMT\r\n\r\n"
    ).encode()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


def main() -> None:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.keys = int(sys.argv[1])  # type: ignore[attr-defined]
        print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
