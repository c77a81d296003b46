"""Sessions under scheme `shares`: who may hold shares, what is public, what a report says."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from sharing_bench import Bench, Seen
from torch import nn

from tempo import Config, Session
from tempo.errors import UsageError
from tempo.fleet import DeviceWorker
from tempo.lowering import Linear
from tempo.nn.autograd import Call, offloaded
from tempo.ops import RingOperand, Seed
from tempo.sharing.registry import Registry, machine_of


def devices(*owners):
    return {owner: [DeviceWorker("cpu", name=f"{owner}-cpu")] for owner in owners}


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(70, 80), nn.Tanh(), nn.Linear(80, 66), nn.Tanh(), nn.Linear(66, 10))


# ---- owners ------------------------------------------------------------------------------------


@pytest.mark.security
@pytest.mark.parametrize(
    "workers",
    [
        "local:3",
        ["a:1", "b:1", "c:1"],
        {"a": "local:1", "b": "local:1", "c": "local:1"},
        {"a": "cpu", "b": "local:1", "c": "c.example:1"},
        {"a": "127.0.0.1:1", "b": "unix:/x", "c": "c.example:1"},
        {"a": ["A.example:1"], "b": ["b.example:1", "a.EXAMPLE:2"], "c": "c.example:1"},
    ],
)
def test_two_shares_never_go_to_one_owner(workers, monkeypatch):
    monkeypatch.setattr("tempo.sharing.hire.workers_from", lambda *_, **__: pytest.fail("workers were made"))
    with pytest.raises(UsageError, match="unsafe_one_owner"):
        Session(workers=workers, scheme="shares")


@pytest.mark.parametrize(
    "workers",
    [
        {},
        {"a": "h:1"},
        {"a": "h:1", "b": "i:1", "c": "j:1", "d": "k:1"},
        {"a b": "h:1", "b": "i:1"},
        {3: "h:1", "b": "i:1"},
    ],
)
def test_owners_are_two_or_three_with_names(workers):
    with pytest.raises(UsageError, match="owner"):
        Session(workers=workers, scheme="shares")


def test_other_schemes_have_no_owners():
    with pytest.raises(UsageError, match="workers by owner are for scheme 'shares'"):
        Session(workers={"a": "cpu"})
    with pytest.raises(UsageError, match="unsafe_one_owner"):
        Session(workers="cpu", unsafe_one_owner=True)
    with Session(workers="cpu") as session, pytest.raises(UsageError, match="owners under scheme"):
        session.add_workers("cpu", owner="a")


def test_one_owner_is_for_trials_and_the_report_says_so():
    with Session(["cpu"] * 4, scheme="shares", unsafe_one_owner=True) as session:
        assert [list(fleet.stats.jobs) for fleet in session._fleet.fleets] == [
            ["cpu-0", "cpu-3"],
            ["cpu-1"],
            ["cpu-2"],
        ]
        assert any("hid nothing from such an owner" in note for note in session.report().notes)
    with pytest.raises(UsageError, match="3 workers at least"):
        Session("cpu", scheme="shares", unsafe_one_owner=True)


def test_the_registry_enters_all_or_none():
    registry = Registry(shared=False)
    registry.enter({"a": ["x:1", "x:2"], "b": "y:1"})
    with pytest.raises(UsageError):
        registry.enter({"c": ["z:1", "y:9"]})
    registry.enter({"d": "z:1"})
    with pytest.raises(UsageError, match="z"):
        registry.enter({"c": "z:1"})
    assert machine_of("vsock:3:7443") == "vsock:3"
    assert machine_of("[::1]:7443") == machine_of("cuda:1") == machine_of("local:2") == "this machine"


def test_workers_join_and_leave_by_owner():
    with Session(workers=devices("a", "b", "c"), scheme="shares") as session:
        assert session.add_workers([DeviceWorker("cpu", name="new")], owner="b") == ["new"]
        for owner in (None, "d"):
            with pytest.raises(UsageError, match="expected one of a, b, c"):
                session.add_workers("cpu", owner=owner)
        model = session.protect(net())
        model(torch.randn(200, 70))
        session.remove_worker("b-cpu")
        with pytest.raises(UsageError, match="no worker is named"):
            session.remove_worker("b-cpuu")
        before = session.report().checks
        model(torch.randn(200, 70))
        report = session.report()
    assert report.checks > before
    assert report.local_fallbacks == 0


@pytest.mark.parametrize(
    "options", [{"wire": "bf16"}, {"arithmetic": "tf32"}, {"placement": "auto"}, {"arithmetic": "bf16"}]
)
def test_settings_that_shares_cannot_have(options):
    with pytest.raises(UsageError, match=next(iter(options))):
        Session(workers=devices("a", "b", "c"), scheme="shares", **options)


def test_a_plan_is_refused_by_name():
    with Session(workers=devices("a", "b", "c"), scheme="shares") as session:
        with pytest.raises(UsageError, match="no plan covers scheme 'shares'"):
            session.calibrate()
        model = net()
        with pytest.raises(UsageError, match="no plan covers"):
            session.protect(model, place={"0": "auto"})
        assert "forward" not in model[0].__dict__


# ---- what runs where ---------------------------------------------------------------------------


def test_a_step_encodes_three_operands_and_ships_ten_bytes_an_entry():
    workers = {owner: [Seen(owner)] for owner in ("a", "b", "c")}
    with Session(workers=workers, scheme="shares") as session:
        model = session.protect(net())
        model(torch.randn(200, 70)).sum().backward()
        report = session.report()
        first = 2 * 200 * (70 + 80) + 2 * (80 * 70)  # X and dY of both, one W at a time
        second = 2 * 200 * (80 + 66) + 2 * (66 * 80)
        seeds = report.bytes_sent - 5 * (first + second)
    assert report.encodings == 6
    assert report.checks == 6 - 1  # the input wants no gradient
    # Two seeds of 32 bytes for one worker, one for each of the others, for every operand.
    assert seeds == 6 * 4 * 32
    assert (report.scheme, report.checks_failed, report.local_fallbacks) == ("shares", 0, 0)
    assert any("a, b, c alone" in note for note in report.notes)


def test_convolutions_are_lowered_by_maps_that_hardly_amplify_errors():
    for scheme, workers, lowering in (
        ("shares", devices("a", "b", "c"), "winograd F(2,3)"),
        ("unsafe_none", "cpu", "winograd F(4,3)"),
    ):
        with Session(workers=workers, scheme=scheme) as session:
            conv = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.Flatten(), nn.Linear(4096 * 4, 10))
            session.protect(conv)(torch.randn(4, 64, 16, 16))
            assert [row.operation for row in session.report().rows if row.offloaded] == [lowering]


# ---- weights -----------------------------------------------------------------------------------


def test_a_weight_is_shared_anew_when_it_changed_and_only_then():
    workers = {owner: [Seen(owner)] for owner in ("a", "b", "c")}
    with Session(workers=workers, scheme="shares") as session:
        model, x = session.protect(net()), torch.randn(96, 70)
        with torch.no_grad():
            model(x)
            model(x)
            assert session._stats.count("encoded_w") == 2
            model[0].weight.data.mul_(1.5)  # its version does not count this
            y = model(x)
            assert session._stats.count("encoded_w") == 3
        session.unprotect(model)
        true = model(x).detach()
        assert float((y - true).norm() / true.norm()) < 1e-4


@pytest.mark.security
def test_every_operand_has_seeds_of_its_own():
    workers = {owner: [Seen(owner)] for owner in ("a", "b", "c")}
    with Session(workers=workers, scheme="shares") as session:
        model = session.protect(net())
        for _ in range(3):
            model(torch.randn(96, 70)).sum().backward()
    seeds = {}
    for own in workers.values():
        for job, _ in own[0].views:
            for operand in job.operands:
                keys = tuple(half.key for half in operand.halves if isinstance(half, Seed))
                for key in keys:
                    assert seeds.setdefault(key, operand.id) == operand.id
    assert len(seeds) == 2 * 14


def test_workers_keep_nothing_when_a_step_is_over():
    workers = {owner: [Seen(owner)] for owner in ("a", "b", "c")}
    with Session(workers=workers, scheme="shares") as session:
        model = session.protect(net())
        for _ in range(4):
            model(torch.randn(96, 70)).sum().backward()
        model(torch.randn(96, 70)).sum().backward()  # releases travel with the next jobs
        held = max(len(own[0].store) for own in workers.values())
    assert held <= 2 + 3  # both weights, and what the last step left


def test_a_job_has_no_operand_of_three_halves():
    with pytest.raises(UsageError, match="at most 2 shares"):
        RingOperand(1, (2, 2), (Seed(bytes(32)),) * 3)


# ---- around it -----------------------------------------------------------------------------------


def test_no_bases_and_no_plan():
    with pytest.raises(UsageError, match="has no bases, so no passes to time and no plan"):
        Config(scheme="shares").make_scheme()


def test_a_timeline_of_all_owners(tmp_path):
    with Session(workers=devices("a", "b", "c"), scheme="shares") as session:
        model = session.protect(net())
        with session.trace(tmp_path / "steps.json"):
            model(torch.randn(96, 70)).sum().backward()
    text = (tmp_path / "steps.json").read_text()
    assert all(f"{owner}-cpu" in text for owner in "abc")


def test_threads_share_a_session():
    with Session(workers=devices("a", "b", "c"), scheme="shares") as session:
        model, x = session.protect(net()), torch.randn(4, 96, 70)
        with ThreadPoolExecutor(4) as pool, torch.no_grad():
            got = list(pool.map(lambda one: model(one).detach(), x))
        session.unprotect(model)
        for one, true in zip(got, model(x).detach(), strict=True):
            assert float((one - true).norm() / true.norm()) < 1e-4


@pytest.mark.security
def test_whoever_measures_attacks_is_told_the_operands_by_name():
    """The same names as on the wire, and what was rounded and shared under each of them."""
    told = {}

    class Told:
        def weight(self, id_, owner, lowering, plain_GNK, left, right):
            told[id_] = ("w", owner, lowering, plain_GNK.clone())

        def rows(self, id_, kind, beside, plain, left, right):
            told[id_] = (kind, beside, [len(part) for part in plain], torch.cat(list(plain)))

    workers = [Seen(f"w{i}") for i in range(3)]
    x, w, dy = torch.randn(80, 70), nn.Parameter(torch.randn(90, 70)), torch.randn(80, 90)
    with Bench(*[[worker] for worker in workers], truth=Told()) as made:
        call = Call(made.engine, Linear((80, 70), (90, 70)), lambda *_: None)
        y, _ = offloaded(call, x.requires_grad_(), w)
        y.backward(dy)
    forward, backward = workers[0].views[0][0], workers[0].views[1][0]
    assert told.keys() == {forward.left.id, forward.right.id, backward.left.id}
    kind, beside, rows, plain = told[forward.left.id]
    assert (kind, beside, rows) == ("x", forward.right.id, [80])
    assert torch.equal(plain, x.detach())
    kind, owner, lowering, plain = told[forward.right.id]
    assert (kind, lowering) == ("w", "linear")
    assert owner is w
    assert torch.equal(plain, w.detach()[None])
    kind, beside, rows, plain = told[backward.left.id]
    assert (kind, beside, rows) == ("dy", forward.left.id, [80])
    assert torch.equal(plain, dy)
