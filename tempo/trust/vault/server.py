"""`tempo vault serve`: a vault that answers masters until it is stopped."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self, final

from tempo.errors import OutsideError, TamperedError, UsageError, WorkerError
from tempo.kernels.hidden import Hidden
from tempo.trust.ledger import Kind
from tempo.trust.vault.acceptor import Masters
from tempo.trust.vault.appraise import Appraiser
from tempo.trust.vault.exchange import MESSAGE_S, Exchange
from tempo.trust.vault.protocol import MAX_NONCE_S, Code, Denied, Request
from tempo.trust.vault.rates import Rate, Rates
from tempo.trust.vault.store import Store
from tempo.wire import Channel, Endpoint, TlsFiles

#: Changes of other processes are entered in the log this often at least.
_DRAIN_S: Final = 0.05
CLIENT_RATE: Final = Rate(30, 10)
OVERALL_RATE: Final = Rate(600, 100)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """tls: a certificate of role vault, whatever the endpoint. client_rate, rate: exchanges begun by one
    client, and by all. nonce_s: seconds that a master has for its evidence. grace_s: seconds that exchanges
    under way have after `stop`."""

    endpoint: Endpoint
    tls: TlsFiles
    max_connections: int = 64
    client_rate: Rate = CLIENT_RATE
    rate: Rate = OVERALL_RATE
    nonce_s: int = 60
    grace_s: float = 10.0

    def __post_init__(self) -> None:
        if self.max_connections < 1 or not 1 <= self.nonce_s <= MAX_NONCE_S:
            raise UsageError(f"a vault has a connection or more, and nonces of 1 to {MAX_NONCE_S} seconds")


@final
class Server(Hidden):
    """Holds the audit log from when it is made; `serve` returns after `stop`.

    Raises UsageError where another process holds the log, TamperedError where database and log disagree. log:
    gets one line per connection, in words of ours.
    """

    def __init__(
        self,
        store: Store,
        appraiser: Appraiser,
        settings: ServeSettings,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._settings = settings
        self._journal = store.journal()
        self._rates = Rates(settings.client_rate, settings.rate)
        self._exchange = Exchange(store, self._journal, appraiser, self._rates, settings.nonce_s)
        try:
            self._acceptor = Masters(
                settings.endpoint,
                settings.tls,
                settings.max_connections,
                self._attend,
                self._turn_away,
                log,
            )
        except BaseException:
            self._journal.close()
            raise

    @property
    def endpoint(self) -> Endpoint:
        """With the port that the system chose."""
        return self._acceptor.endpoint

    def serve(self) -> None:
        """Raises what the vault cannot go on after: OutsideError where the log cannot be written,
        TamperedError where the database is not what the vault wrote."""
        try:
            self._acceptor.serve(self._journal.drain, _DRAIN_S, self._settings.grace_s)
        finally:
            self._journal.close()

    def stop(self) -> None:
        """For any thread or signal handler."""
        self._acceptor.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.close()

    def _attend(self, channel: Channel[Request], client: str, leave: Callable[[], None]) -> str:
        try:
            return self._exchange.serve(channel, client, leave)
        except WorkerError:
            raise
        except (OutsideError, TamperedError):
            with contextlib.suppress(WorkerError):
                channel.send(Denied("failed"), deadline=time.monotonic() + MESSAGE_S)
            raise

    def _turn_away(self, channel: Channel[Request], client: str, code: Code) -> None:
        # Under the rates too: who has a certificate of another role must not fill the disk.
        admitted, turned = self._rates.admit(client)
        if admitted or turned == 0:
            self._journal.append(Kind.KEY_REFUSED, client=client, code=code)
        channel.send(Denied(code), deadline=time.monotonic() + MESSAGE_S)
