"""Who may call: bearer keys, remembered for a few seconds, and each key's rate limit."""

import hmac
import threading
import time
from collections.abc import Callable

from mixpeek_dagster.errors import TooManyRequests, Unauthorized
from mixpeek_dagster.pipeline.keys import Caller, find_caller
from mixpeek_dagster.pipeline.warehouse import Warehouse

REMEMBER_S = 2.0
"""A revoked key may work so much longer."""


class Guard:
    """Turns the `Authorization` header into a caller. One per application; safe between threads."""

    def __init__(self, warehouse: Warehouse, *, ticks: Callable[[], float] = time.monotonic) -> None:
        self._warehouse = warehouse
        self._ticks = ticks
        self._known: dict[str, tuple[float, Caller]] = {}
        self._allowance: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def remembered(self, authorization: str) -> Caller | None:
        """The caller, when this header was checked a moment ago: no database is asked."""
        known = self._known.get(authorization)
        return known[1] if known is not None and self._ticks() - known[0] < REMEMBER_S else None

    def admit(self, authorization: str) -> Caller:
        """The caller behind a header.

        Raises:
            Unauthorized: there is no key, or it is not valid (any more).
        """
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise Unauthorized("Send `Authorization: Bearer sk_…`; `mixpeek-dagster keys create` makes a key.")
        caller = self._operators(token) or find_caller(self._warehouse, token)
        if caller is None:
            raise Unauthorized("The API key is not valid: it is unknown or was revoked.")
        with self._lock:
            if len(self._known) > 10_000:
                self._known.clear()
            self._known[authorization] = (self._ticks(), caller)
        return caller

    def spend(self, caller: Caller) -> None:
        """Count one request of a key.

        Raises:
            TooManyRequests: the key used up its allowance; the details say when to come again.
        """
        per_minute = self._warehouse.settings.rate_limit_per_minute
        if per_minute <= 0:
            return
        rate, burst = per_minute / 60, max(1.0, per_minute / 6)
        with self._lock:
            now = self._ticks()
            left, at = self._allowance.get(caller.key_id, (burst, now))
            left = min(burst, left + (now - at) * rate)
            self._allowance[caller.key_id] = (max(left - 1, 0.0) if left >= 1 else left, now)
        if left < 1:
            raise TooManyRequests(
                f"This API key may send {per_minute} requests a minute.",
                details={"api_name": "rest", "retry_after_seconds": round((1 - left) / rate, 3), "retryable": True},
            )

    def _operators(self, token: str) -> Caller | None:
        own = self._warehouse.settings.api_key
        if own and hmac.compare_digest(own.encode(), token.encode()):
            return Caller(key_id="key_environment", name="MIXPEEK_API_KEY")
        return None
