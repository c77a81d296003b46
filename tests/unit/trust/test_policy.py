"""Policies: what a file may say, who signed it, and what it admits; every refusal at its own step."""

from __future__ import annotations

import dataclasses
import stat

import pytest
from authorities import DAY, NOW

from tempo.errors import RefusedError, TamperedError, UsageError
from tempo.trust.evidence import NOT_PROVIDED, VENDORS, Claims, Kind
from tempo.trust.policy import Demands, Policy, Step
from tempo.trust.policy_file import parse_policy
from tempo.trust.policy_key import PolicyKey, PolicySigner, signature_path

pytestmark = pytest.mark.security
ONE, TWO, SIGNER = "11" * 48, "22" * 48, "33" * 48

TEXT = f"""
tempo-policy = 1
name = "training, production"
expires = 2026-06-30T00:00:00Z

[sev-snp]
measurements = [
  {{ measurement = "{ONE}", host_data = "{"00" * 32}" }},
  {{ measurement = "{TWO.upper()}" }},
]
signers.id_key = ["{SIGNER}"]
minimum-tcb = {{ bootloader = 3, snp = 8 }}
details = {{ vmpl = 0 }}
platforms = ["c0ffee"]
revocation = true

[tdx]
measurements = [{{ mr_td = "{ONE}", rt_mr1 = "{TWO}" }}]
require = {{ mr_owner = "{"00" * 48}" }}
statuses = ["UpToDate", "SWHardeningNeeded"]
advisories = ["INTEL-SA-00615"]
roots = ["{"ab" * 32}"]
"""


@pytest.fixture
def policy() -> Policy:
    return parse_policy(TEXT.encode())


def snp(**changes) -> Claims:
    claims = Claims(
        kind=Kind.SEV_SNP,
        bound=b"",
        measurements={"measurement": ONE, "host_data": "00" * 32},
        root="",
        debug=False,
        tcb={"bootloader": 3, "tee": 0, "snp": 9},
        platform="c0ffee",
        revocation=True,
        details={"vmpl": 0},
    )
    return dataclasses.replace(claims, **changes)


def tdx(**changes) -> Claims:
    measurements = {"mr_td": ONE, "rt_mr1": TWO, "mr_owner": "00" * 48}
    claims = Claims(Kind.TDX, b"", measurements, "", debug=False, status="UpToDate")
    return dataclasses.replace(claims, **changes)


@pytest.mark.parametrize(
    "claims",
    [
        snp(),
        snp(measurements={"measurement": TWO}),
        snp(measurements={"measurement": "44" * 48}, signers={"id_key": SIGNER}),
        tdx(),
        tdx(status="SWHardeningNeeded", advisories=("INTEL-SA-00615",)),
    ],
)
def test_what_is_admitted(policy, claims) -> None:
    policy.check(claims, NOW)


@pytest.mark.parametrize(
    ("step", "match", "claims"),
    [
        (Step.KIND, "evidence of nitro", dataclasses.replace(snp(), kind=Kind.NITRO)),
        (Step.KIND, "unsafe-simulated", dataclasses.replace(snp(), kind=Kind.SIMULATED)),
        (Step.DEBUG, "debug True", snp(debug=True)),
        (Step.DEBUG, "debug nothing", snp(debug=NOT_PROVIDED)),
        (Step.CODE, "measurement 4444", snp(measurements={"measurement": "44" * 48, "host_data": "00" * 32})),
        (Step.CODE, "host_data 0101", snp(measurements={"measurement": ONE, "host_data": "01" * 32})),
        (Step.CODE, "measurement nothing", snp(measurements={})),
        (Step.CODE, "signer id_key 5555", snp(measurements={}, signers={"id_key": "55" * 48})),
        (Step.TCB, "snp 7", snp(tcb={"bootloader": 3, "snp": 7})),
        (Step.TCB, "bootloader nothing", snp(tcb={"snp": 8})),
        (Step.PLATFORM, "c0ffed", snp(platform="c0ffed")),
        (Step.PLATFORM, "nothing", snp(platform=NOT_PROVIDED)),
        (Step.DETAIL, "vmpl 1", snp(details={"vmpl": 1})),
        (Step.DETAIL, "vmpl False", snp(details={"vmpl": False})),
        (Step.DETAIL, "vmpl nothing", snp(details={})),
        (Step.REVOCATION, "no revocation", snp(revocation=False)),
        (Step.CODE, "rt_mr1 1111", tdx(measurements={"mr_td": ONE, "rt_mr1": ONE, "mr_owner": "00" * 48})),
        (Step.CODE, "mr_owner nothing", tdx(measurements={"mr_td": ONE, "rt_mr1": TWO})),
        (Step.STATUS, "OutOfDate", tdx(status="OutOfDate")),
        (Step.STATUS, "Revoked", tdx(status="Revoked")),
        (Step.STATUS, "INTEL-SA-00001", tdx(advisories=("INTEL-SA-00001",))),
    ],
)
def test_what_is_refused(policy, step, match, claims) -> None:
    with pytest.raises(RefusedError, match=match) as error:
        policy.check(claims, NOW)
    assert error.value.step == step


def test_an_empty_set_admits_nothing() -> None:
    """The reader of files refuses it; so does a policy that was made in Python."""
    for demands in (Demands(({},)), Demands()):
        with pytest.raises(RefusedError) as error:
            Policy("made", {Kind.SEV_SNP: demands}).check(snp(), NOW)
        assert error.value.step == Step.CODE


def test_an_expired_policy(policy) -> None:
    with pytest.raises(RefusedError, match="2026-06-30") as error:
        policy.check(snp(), NOW + 200 * DAY)
    assert error.value.step == Step.VALIDITY


def test_the_order_of_refusals(policy) -> None:
    """The worst is named first: debug before code, code before TCB."""
    bad = snp(debug=True, measurements={}, tcb={}, details={})
    for step, mend in ((Step.DEBUG, {"debug": False}), (Step.CODE, {"measurements": {"measurement": TWO}})):
        with pytest.raises(RefusedError) as error:
            policy.check(bad, NOW)
        assert error.value.step == step
        bad = dataclasses.replace(bad, **mend)
    with pytest.raises(RefusedError) as error:
        policy.check(bad, NOW)
    assert error.value.step == Step.TCB


def test_whom_a_policy_trusts(policy) -> None:
    assert policy.anchors.of(Kind.SEV_SNP) == VENDORS[Kind.SEV_SNP]
    assert policy.anchors.of(Kind.TDX) == {"ab" * 32}
    assert policy.anchors.of(Kind.NITRO) == frozenset()


HEAD = 'tempo-policy = 1\nname = "x"\n'
SNP = f'[sev-snp]\nmeasurements = [{{ measurement = "{ONE}" }}]\n'


@pytest.mark.parametrize(
    ("match", "text"),
    [
        ("no TOML", "="),
        ("no TOML", "\udcff"),
        ("tempo-policy = 1", 'name = "x"\n' + SNP),
        ("tempo-policy = 1", 'tempo-policy = 2\nname = "x"\n' + SNP),
        ("tempo-policy = 1", 'tempo-policy = true\nname = "x"\n' + SNP),
        ("a `name`", "tempo-policy = 1\n" + SNP),
        ("`expires`", HEAD + "expires = 2026-01-01\n" + SNP),
        ("`expires`", HEAD + "expires = 2026-01-01T00:00:00\n" + SNP),
        ("does not know 'sev'", HEAD + "[sev]\n"),
        ("does not know 'debug'", HEAD + "debug = true\n" + SNP),
        ("does not know 'debug'", HEAD + SNP + "debug = true\n"),
        ("does not know 'mesurements'", HEAD + SNP + "mesurements = []\n"),
        ("admits no kind", HEAD),
        ("would admit any code", HEAD + "[sev-snp]\n"),
        ("measurements: expected", HEAD + "[sev-snp]\nmeasurements = []\n"),
        ("measurements: expected", HEAD + "[sev-snp]\nmeasurements = [{}]\n"),
        ("measurements: expected", HEAD + '[sev-snp]\nmeasurements = { measurement = "00" }\n'),
        ("measurements: expected", HEAD + '[sev-snp]\nmeasurements = ["00"]\n'),
        ("hexadecimal", HEAD + '[sev-snp]\nmeasurements = [{ measurement = "xx" }]\n'),
        ("hexadecimal", HEAD + '[sev-snp]\nmeasurements = [{ measurement = "123" }]\n'),
        ("zeros stand for none", HEAD + '[sev-snp]\nsigners.id_key = ["0000"]\n'),
        ("signers", HEAD + "[sev-snp]\nsigners = {}\n"),
        ("signers.id_key", HEAD + "[sev-snp]\nsigners.id_key = []\n"),
        ("a number", HEAD + SNP + "minimum-tcb = { snp = -1 }\n"),
        ("a number", HEAD + SNP + "minimum-tcb = { snp = true }\n"),
        ("a number", HEAD + SNP + 'minimum-tcb = { snp = "8" }\n'),
        ("statuses", HEAD + SNP + 'statuses = ["UpToDate"]\n'),
        ("only for", HEAD + SNP + f'keys = ["{"00" * 32}"]\n'),
        ("SHA-256", HEAD + SNP + 'roots = ["abc"]\n'),
        ("at least one", HEAD + SNP + "roots = []\n"),
        ("true or false", HEAD + SNP + "revocation = 1\n"),
        ("details", HEAD + SNP + "details = { vmpl = [0] }\n"),
        ("`keys` or `roots`", HEAD + '[tpm]\nmeasurements = [{ pcr0 = "00" }]\n'),
        ("proves nothing", HEAD + '[unsafe-simulated]\nmeasurements = [{ measurement = "00" }]\n'),
        ("true or false", HEAD + "allow-unsafe = 1\n" + SNP),
        ("at most", "#" * 1100000),
    ],
)
def test_what_is_no_policy(match, text) -> None:
    with pytest.raises(UsageError, match=match):
        parse_policy(text.encode(errors="surrogateescape"))


def test_the_simulator_is_admitted_only_by_name() -> None:
    text = HEAD + 'allow-unsafe = true\n[unsafe-simulated]\nmeasurements = [{ measurement = "00" }]\n'
    assert set(parse_policy(text.encode()).kinds) == {Kind.SIMULATED}


def test_signed_policies(tmp_path) -> None:
    signer, other = PolicySigner.generate(), PolicySigner.generate()
    path = tmp_path / "policy.toml"
    path.write_text(TEXT)
    signature_path(path).write_text(signer.sign(TEXT.encode()))
    assert signer.public.open_file(path) == parse_policy(TEXT.encode())
    with pytest.raises(TamperedError, match="signed by the key"):
        other.public.open_file(path)
    path.write_text(TEXT.replace("snp = 8", "snp = 7"))
    with pytest.raises(TamperedError, match="does not fit"):
        signer.public.open_file(path)
    raw, signature = TEXT.encode(), signer.sign(TEXT.encode())
    renamed = other.sign(raw).replace(other.public.name, signer.public.name)
    for bad, match in (
        ("", "none"),
        ("x y z", "none"),
        (renamed, "does not fit"),
        (signature[:-9], "does not fit"),
    ):
        with pytest.raises(TamperedError, match=match):
            signer.public.open(raw, bad)
    with pytest.raises(UsageError, match="cannot be read"):
        signer.public.open_file(tmp_path / "none.toml")
    with pytest.raises(UsageError, match="admits no kind"):
        signer.sign(HEAD.encode())


def test_keys_in_files(tmp_path) -> None:
    signer = PolicySigner.generate()
    signer.save(tmp_path / "key")
    signer.public.save(tmp_path / "public")
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    again = PolicySigner.load(tmp_path / "key")
    assert PolicyKey.load(tmp_path / "public").name == again.public.name == signer.public.name
    assert "hidden" in repr(signer)
    with pytest.raises(UsageError):
        PolicySigner.load(tmp_path / "public")
    with pytest.raises(UsageError):
        PolicyKey.load(tmp_path / "key")
