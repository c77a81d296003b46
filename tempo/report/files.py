"""JSON files of Tempo, read as data of strangers: types checked, unknown fields ignored, sizes limited."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final, TypeVar, final

import msgspec

from tempo.errors import OutsideError, UsageError
from tempo.report.sections import Source

#: A larger file is no report: a trace of a million spans has about 100 MB.
LARGEST_BYTES: Final = 128 << 20

T = TypeVar("T")


@final
class JsonFile:
    """The object of a JSON file, as it was when it was read. Raises OutsideError, UsageError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            if path.stat().st_size > LARGEST_BYTES:
                raise UsageError(
                    f"{path} is larger than {LARGEST_BYTES >> 20} MiB: no report is made of that"
                )
            data = path.read_bytes()
        except OSError as error:
            raise OutsideError(f"{path} cannot be read ({error.strerror})") from error
        self._sha256 = hashlib.sha256(data).hexdigest()
        try:
            found = msgspec.json.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise UsageError(f"{path} is no JSON: {error}") from error
        if not isinstance(found, dict):
            raise UsageError(f"{path} is no JSON object of Tempo")
        self.fields: dict[str, Any] = found

    @property
    def verb(self) -> str:
        """The command that printed it, "" where it does not say."""
        return str(self.fields.get("verb", ""))

    def source(self, what: str) -> Source:
        return Source(name=self.path.name, what=what, sha256=self._sha256)

    def convert(self, value: Any, kind: type[T]) -> T:
        """`value`, a part of this file, as a section. Raises UsageError where it is none."""
        try:
            return msgspec.convert(value, kind)
        except (msgspec.ValidationError, ValueError, OverflowError) as error:
            raise UsageError(f"{self.path} is not what this version of Tempo writes: {error}") from error

    def expect(self, verb: str) -> JsonFile:
        """Raises UsageError where another command wrote it."""
        if self.verb != verb:
            raise UsageError(
                f"{self.path} is no output of tempo {verb} --json, but of "
                f"{f'tempo {self.verb}' if self.verb else 'something else'}"
            )
        return self
