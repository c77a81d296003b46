"""docs/wire.md says what the code does: limits, messages, codes, refusals."""

import re
import typing
from pathlib import Path

from tempo.fleet import RemoteWorker
from tempo.wire import limits, messages
from tempo.wire.tls import Why
from tempo.worker import recorder
from tempo.worker.listener import ListenSettings

TEXT = (Path(__file__).parents[3] / "docs" / "wire.md").read_text()


def test_the_limits():
    rows = re.findall(r"^\| ([A-Z_]+) \| (\S+) \|", TEXT, re.MULTILINE)
    said = {name: float(value) if "." in value else int(value) for name, value in rows}
    assert said == {name: value for name, value in vars(limits).items() if name.isupper()}


def test_the_messages_and_codes():
    for union in (messages.Request, messages.Reply):
        for message in typing.get_args(union):
            name = message.__struct_config__.tag
            assert re.search(rf"\b{name}\b", TEXT), name
    (said,) = re.findall(r"code: ([a-z, ]+)$", TEXT, re.MULTILINE)
    assert tuple(said.split(", ")) == typing.get_args(messages.Code)


def test_the_refusals():
    words = {
        Why.REVOKED: "name: revoked",
        Why.NO_LIST: "a list of revoked certificates that cannot be used",
        Why.EXPIRED: "expired",
        Why.NOT_YET_VALID: "not yet valid",
        Why.SELF_SIGNED: "self-signed",
        Why.WRONG_CA: "another authority",
        Why.MISSING: "missing",
        Why.WRONG_ROLE: "another\nrole",
        Why.WRONG_NAME: "another name",
        Why.NO_TLS: "no TLS,",
        Why.VERSION: "no TLS 1.3",
    }
    assert set(Why) - set(words) == {Why.BAD, Why.UNASKED, Why.OTHER}
    assert all(text in TEXT for text in words.values())
    assert len({why.value for why in Why}) == len(Why)


def test_the_settings():
    fields = ListenSettings.__dataclass_fields__
    assert (fields["max_connections"].default, fields["grace_s"].default) == (4, 10.0)
    assert recorder.DEFAULT_MAX_BYTES == 16 << 30
    assert RemoteWorker("unix:/x")._pauses == (0.5, 30.0)
    assert "after 0.5 s, doubling up to 30 s" in TEXT
