"""Every error the system raises, as one tree.

    MixpeekError
    ├── BadRequest            400  a parameter combination or a state that does not allow the call
    │   └── WrongState        400  the record exists but is in a state that forbids the step
    ├── Unauthorized          401  no key, or a key that is not valid
    ├── Forbidden             403  the key may not do this
    ├── NotFound              404  no such id or name in this namespace
    ├── AlreadyExists         409  the name or the key is taken
    ├── Invalid               422  the body does not fit its schema
    │   ├── SchemaViolation   422  an object does not fit its bucket's schema
    │   ├── UnknownName       422  a provider, extractor or index nobody registered
    │   └── UrlRefused        422  a URL we do not fetch: not a public address, another scheme, too large (Terminal)
    ├── TooManyRequests       429  the caller's rate limit
    ├── ProviderError         502  somebody else's storage failed
    │   ├── AccessDenied      502  … refused our credentials           (Terminal)
    │   ├── WrongConnection   502  … is not what the connection says: no such bucket, another region (Terminal)
    │   ├── Archived          502  … must restore the file before it can be read (Terminal)
    │   ├── ProviderDown      502  … did not answer, or asked us to wait (Transient)
    │   ├── Changed           502  … holds another revision than we listed (Transient)
    │   └── BadListing        502  … answered a listing that cannot be true (Transient)
    ├── ExtractionError       422  one input could not be turned into features (Terminal)
    ├── ModelError            500  a model pack is missing, broken or does not fit
    ├── VectorIndexError      503  the vector index refused or lost a write (Transient)
    ├── CatalogError          503  the catalog cannot be written (disk full, locked, unreachable) (Transient)
    ├── OutOfSpace            503  a folder of this machine has no room for a file (Transient)
    └── MissingExtra          500  an optional dependency is not installed

`Transient` errors may succeed when tried again unchanged; `Terminal` ones will not.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class Transient(Exception):
    """May succeed when tried again unchanged."""


class Terminal(Exception):
    """Will fail again until somebody changes something."""


class MixpeekError(Exception):
    """Base of all errors. The message says what happened, to which id, and what to do about it."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    type: ClassVar[str] = "InternalServerError"

    def __init__(self, message: str, *, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = dict(details or {})


class BadRequest(MixpeekError):
    code, status, type = "bad_request", 400, "BadRequestError"


class WrongState(BadRequest):
    code = "wrong_state"


class Unauthorized(MixpeekError):
    code, status, type = "unauthorized", 401, "UnauthorizedError"


class Forbidden(MixpeekError):
    code, status, type = "forbidden", 403, "ForbiddenError"


class NotFound(MixpeekError):
    code, status, type = "not_found", 404, "NotFoundError"


class AlreadyExists(MixpeekError):
    code, status, type = "already_exists", 409, "AlreadyExistsError"


class Invalid(MixpeekError):
    code, status, type = "invalid", 422, "ValidationError"


class SchemaViolation(Invalid, Terminal):
    code = "schema_violation"


class UnknownName(Invalid):
    code = "unknown_name"


class UrlRefused(Invalid, Terminal):
    code = "url_refused"


class TooManyRequests(MixpeekError):
    code, status, type = "too_many_requests", 429, "TooManyRequestsError"


class ProviderError(MixpeekError):
    code, status, type = "provider_error", 502, "StorageError"


class AccessDenied(ProviderError, Terminal):
    code = "access_denied"


class WrongConnection(ProviderError, Terminal):
    code = "wrong_connection"


class Archived(ProviderError, Terminal):
    code = "source_archived"


class ProviderDown(ProviderError, Transient):
    """`retry_after_s` is how many seconds the provider asks to be left alone; None where it does not say."""

    code = "provider_down"

    def __init__(self, message: str, *, details: Mapping[str, Any] | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message, details=details)
        self.retry_after_s = retry_after_s


class Changed(ProviderError, Transient):
    code = "source_changed"


class BadListing(ProviderError, Transient):
    code = "bad_listing"


class ExtractionError(MixpeekError, Terminal):
    code, status, type = "extraction_failed", 422, "ProcessingError"


class ModelError(MixpeekError):
    code, status, type = "model_error", 500, "ProcessingError"


class VectorIndexError(MixpeekError, Transient):
    code, status, type = "vector_index_error", 503, "InferenceServiceUnavailableError"


class CatalogError(MixpeekError, Transient):
    code, status, type = "catalog_error", 503, "StorageError"


class OutOfSpace(MixpeekError, Transient):
    code, status, type = "out_of_space", 503, "StorageError"


class MissingExtra(MixpeekError):
    """An optional dependency is not installed; the message prints the pip line that installs it."""

    code = "missing_extra"

    def __init__(self, extra: str, *, needed_by: str) -> None:
        super().__init__(f"{needed_by} needs an optional dependency: pip install 'mixpeek-dagster[{extra}]'")


def words_of(error: Exception) -> str:
    """What an error says, for people: its message, and the kind of an error that is not ours."""
    return error.message if isinstance(error, MixpeekError) else f"{type(error).__name__}: {error}"


def _codes(kind: type[MixpeekError]) -> frozenset[str]:
    own = frozenset({kind.code}) if issubclass(kind, Terminal) else frozenset()
    return own.union(*(_codes(one) for one in kind.__subclasses__()))


PERMANENT = _codes(MixpeekError)
"""Codes of the errors that stay until somebody changes something."""
