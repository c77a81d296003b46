"""tempo.toml: what is read, and what is refused by name."""

import pytest

from tempo import FleetSettings, Session
from tempo.config_file import read_config
from tempo.errors import OutsideError, UsageError

WHOLE = """
[session]
scheme = "shares"
min_size = 32
spread = 2
local_fallback = false

[session.fleet]
quarantine_s = 30

[workers]
alpha = ["a.example:7443"]
beta = "b.example:7443"
gamma = ["c.example:7443", "d.example:7443"]

[tls]
cert = "pki/master.pem"
key = "pki/master.key"
ca = "/etc/ca.pem"

[prices]
currency = "EUR"
"""


def written(tmp_path, text):
    path = tmp_path / "tempo.toml"
    path.write_text(text)
    return path


def test_a_whole_file(tmp_path):
    file = read_config(written(tmp_path, WHOLE))
    assert (file.config.scheme, file.config.min_size, file.config.local_fallback) == ("shares", 32, False)
    assert file.config.spread == 2
    assert file.config.fleet == FleetSettings(quarantine_s=30)
    assert file.workers == {
        "alpha": ["a.example:7443"],
        "beta": "b.example:7443",
        "gamma": ["c.example:7443", "d.example:7443"],
    }
    assert file.tls is not None
    assert file.tls.cert == str(tmp_path / "pki/master.pem")
    assert file.tls.ca == "/etc/ca.pem"


def test_an_empty_file_is_the_default(tmp_path):
    file = read_config(written(tmp_path, ""))
    assert (file.config.scheme, file.workers, file.tls) == ("mixing", None, None)


def test_workers_of_one_fleet(tmp_path):
    assert read_config(written(tmp_path, 'workers = "local:2"')).workers == "local:2"
    assert read_config(written(tmp_path, 'workers = ["cpu", "local:1"]')).workers == ["cpu", "local:1"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[sesion]", "unknown key sesion. There are: prices, session, tls, vault, watch, workers"),
        ("[session]\nshceme = 'mixing'", "unknown key session.shceme"),
        ("[session.fleet]\nquarantine = 3", "unknown key session.fleet.quarantine"),
        ("[tls]\ncert = 'a'\nkey = 'b'\nca = 'c'\npassword = 'd'", "unknown key tls.password"),
        ("[tls]\ncert = 'a'\nkey = 'b'", "ca is missing"),
        ("[session]\nscheme = 'magic'", "expected one of mixing"),
        ("[session]\nscheme = 3", "session.scheme = 3: expected a str"),
        ("[session]\nprobes = true", "session.probes = True: expected a int"),
        ("[session]\nkey_shift = 1", "session.key_shift = 1: expected a bool"),
        ("[session.fleet]\nquarantine_s = 'long'", "wrong type"),
        ("session = 3", "session is a table"),
        ("workers = 3", "workers are a string, a list of strings"),
        ("[workers]\nalpha = 3", "workers are a string, a list of strings"),
        ("[workers.alpha]\nhosts = ['a:1']", "workers are a string, a list of strings"),
        ("scheme = ", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named_with_the_file(text, words, tmp_path):
    path = written(tmp_path, text)
    with pytest.raises(UsageError) as error:
        read_config(path)
    assert words in str(error.value)
    assert str(path) in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(OutsideError, match="cannot be read"):
        read_config(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(OutsideError, match="UTF-8"):
        read_config(tmp_path / "binary.toml")


def test_a_session_from_a_file(tmp_path):
    path = written(tmp_path, 'workers = ["cpu"]\n[session]\nmin_size = 16\nblock = 16\n')
    with Session.from_file(path, probes=1) as session:
        assert (session._config.min_size, session._config.probes) == (16, 1)
        assert list(session._fleet.stats.jobs) == ["cpu-0"]


def test_owners_of_a_file_reach_the_session(tmp_path):
    text = "[session]\nscheme = 'shares'\nunsafe_one_owner = true\n"
    text += "[workers]\na = 'cpu'\nb = ['cpu']\nc = 'cpu'\n"
    with Session.from_file(written(tmp_path, text)) as session:
        assert session._fleet.names == ("a", "b", "c")
        assert list(session._fleet.stats.jobs) == ["cpu-0", "cpu-1", "cpu-2"]
