"""Drafted policies admit the machine that they are of, and none that loaded something else."""

from dataclasses import replace

import dcap_maker as dcap
import pytest
import snp_maker as snp
from authorities import NOW

from tempo.errors import RefusedError, UsageError
from tempo.trust.evidence import Claims, Expected, Kind
from tempo.trust.evidence.claims import NOT_PROVIDED
from tempo.trust.policy_draft import draft_policy
from tempo.trust.policy_file import parse_policy
from tempo.trust.verifier import Verifier

pytestmark = pytest.mark.security

EXPECTED = Expected.answer(b"n" * 32, b"key", b"")


def of_snp() -> Claims:
    made = snp.platform()
    raw = snp.report(made.vcek.key, data=EXPECTED.report_data)
    return Verifier(made.anchors, made.collateral).verify(snp.evidence(raw), EXPECTED, NOW)


def of_dcap(tee: str, **collateral) -> Claims:
    pytest.importorskip("dcap_qvl")
    made = dcap.platform()
    shown = dcap.evidence(dcap.quote(made, tee, data=EXPECTED.report_data), tee)
    return Verifier(made.anchors(), dcap.collateral(made, tee, **collateral)).verify(shown, EXPECTED, NOW)


def of_tpm() -> Claims:
    measurements = {"pcr0": "aa" * 32, "pcr7": "bb" * 32}
    return Claims(Kind.TPM, bytes(32), measurements, "cc" * 32, debug=False, platform="cc" * 32)


def with_roots(policy: str, claims: Claims) -> str:
    """As the vendor's root would be named, which the made hierarchies are not."""
    return policy if claims.kind is Kind.TPM else policy + f'roots = ["{claims.root}"]\n'


@pytest.mark.parametrize("of", [of_snp, lambda: of_dcap("TDX"), lambda: of_dcap("SGX"), of_tpm])
def test_the_machine_is_admitted_and_others_are_not(of):
    claims = of()
    policy = parse_policy(with_roots(draft_policy(claims, "drafted"), claims).encode())
    assert policy.name == "drafted"
    policy.check(claims, NOW)
    (demands,) = policy.kinds.values()
    for name in demands.measurements[0]:
        loaded = {**claims.measurements, name: "ee" * (len(claims.measurements[name]) // 2)}
        with pytest.raises(RefusedError, match="policy 4 code"):
            policy.check(replace(claims, measurements=loaded), NOW)
    for name, value in claims.tcb.items():
        if value:
            with pytest.raises(RefusedError, match="policy 5 tcb"):
                policy.check(replace(claims, tcb={**claims.tcb, name: value - 1}), NOW)
    for name in demands.details:
        with pytest.raises(RefusedError, match="policy 8 detail"):
            policy.check(replace(claims, details={**claims.details, name: 7}), NOW)


def test_what_was_loaded_is_named():
    (demands,) = parse_policy(draft_policy(of_snp(), "x").encode()).kinds.values()
    assert demands.measurements == ({"measurement": snp.MEASUREMENT.hex()},)  # host data are zeros here
    assert demands.details == {"vmpl": 0}
    (demands,) = parse_policy(draft_policy(of_dcap("TDX"), "x").encode()).kinds.values()
    assert set(demands.measurements[0]) == {"mr_td", "rt_mr0", "rt_mr1", "rt_mr2"}
    (demands,) = parse_policy(draft_policy(of_dcap("SGX"), "x").encode()).kinds.values()
    assert demands.measurements[0]["mr_enclave"] == dcap.MR["mr_enclave"].hex()
    claims = of_snp()
    told = replace(claims, measurements={**claims.measurements, "host_data": "01" * 32})
    (demands,) = parse_policy(draft_policy(told, "x").encode()).kinds.values()
    assert demands.measurements[0]["host_data"] == "01" * 32


def test_a_platform_that_is_not_up_to_date_is_said_to_be():
    claims = of_dcap("TDX", status="SWHardeningNeeded", advisories=("INTEL-SA-00001",))
    text = with_roots(draft_policy(claims, "x"), claims)
    assert "Sign it only if that is meant" in text
    parse_policy(text.encode()).check(claims, NOW)
    with pytest.raises(RefusedError, match="policy 6 status"):
        parse_policy(text.encode()).check(replace(claims, advisories=("INTEL-SA-00002",)), NOW)
    assert "Sign it only" not in draft_policy(of_dcap("TDX"), "x")


@pytest.mark.parametrize("name", ["", "  ", 'a"\n', 'a" # b', "a\\"])
def test_names_that_would_break_the_file(name):
    with pytest.raises(UsageError, match="name"):
        draft_policy(replace(of_tpm(), status=NOT_PROVIDED), name)
