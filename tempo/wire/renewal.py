"""A TLS context that follows the list of revoked certificates: who was revoked is refused from then on,
without a restart. Connections that stand are not looked at again."""

from __future__ import annotations

import os
import ssl
from typing import final

from tempo.errors import UsageError, WorkerLost
from tempo.wire.tls import Role, TlsFiles


@final
class Renewal:
    """Of one side's contexts. One thread at a time."""

    def __init__(self, files: TlsFiles, role: Role) -> None:
        self._files = files
        self._role = role
        self._seen = self._look()

    def of(self, context: ssl.SSLContext) -> ssl.SSLContext:
        """The same context, or a new one where the list is another than the last time.

        Raises WorkerLost where the new list cannot be used: then nobody can be checked against it, and nobody
        is served until it can.
        """
        now = self._look()
        if now == self._seen:
            return context
        try:
            made = self._files.context(self._role)
        except UsageError as error:
            raise WorkerLost(f"nobody is let in: {error}") from None
        self._seen = now
        return made

    def _look(self) -> tuple[int, int, int] | None:
        """What a file's replacement changes; None without a list, or while it is not there."""
        if self._files.crl is None:
            return None
        try:
            found = os.stat(self._files.crl)
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns
