"""The trust boundary in the imports, and what the secret-bearing modules may not touch.

A worker's process loads nothing that knows keys; only `tempo.integrity` opens an unverified reply; no
generator but our own stream makes secrets; nothing in the package runs code that came as data.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tempo

PACKAGE = Path(tempo.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
OWN_SIDE = ("wire", "ops", "worker")
MASTER_ONLY = (
    "secrecy",
    "integrity",
    "engine",
    "facade",
    "run",
    "watch",
    "nn",
    "fleet",
    "lowering",
    "kernels",
    "backward",
    "plan",
    "sharing",
    "products",
    "config_file",
)


def name_of(path):
    return path.relative_to(PACKAGE).as_posix()


def tree_of(path):
    return ast.parse(path.read_text(), str(path))


def imports_of(path):
    """Full names of all modules imported anywhere in the file, also inside functions."""
    package = ["tempo", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            yield module
            if module == "tempo":
                yield from (f"tempo.{alias.name}" for alias in node.names)


def fresh(*arguments):
    """A fresh interpreter with these arguments, and the names of the tempo modules it loaded."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=PACKAGE.parent,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    loaded = {line.rsplit("|", 1)[1].strip() for line in lines}
    return done.stdout, {name for name in loaded if name.split(".")[0] == "tempo"}


def not_the_workers(loaded):
    allowed = {"tempo", "tempo.errors", "tempo.memory", *(f"tempo.{part}" for part in OWN_SIDE)}
    return sorted(m for m in loaded if m not in allowed and m.split(".")[1] not in OWN_SIDE)


@pytest.mark.security
def test_a_worker_process_loads_nothing_that_knows_keys():
    _, loaded = fresh("-c", "import tempo.worker, tempo.wire, tempo.ops")
    assert "tempo.worker" in loaded
    assert "tempo.ops" in loaded
    assert not_the_workers(loaded) == []
    for part in MASTER_ONLY:
        assert not any(name == f"tempo.{part}" or name.startswith(f"tempo.{part}.") for name in loaded)


@pytest.mark.security
def test_the_worker_command_loads_nothing_that_knows_keys():
    out, loaded = fresh("-m", "tempo.worker", "--help")
    assert "--device" in out
    assert "tempo.worker" in loaded
    assert not_the_workers(loaded) == []


@pytest.mark.security
def test_the_demos_master_loads_nothing_of_the_owners_house():
    _, loaded = fresh("-c", "import tempo.demo.owner.master")
    ours = {name.removeprefix("tempo.demo.owner.") for name in loaded if name.startswith("tempo.demo.owner.")}
    assert ours == {"master", "orders", "training"}


@pytest.mark.security
@pytest.mark.parametrize("path", [p for p in FILES if name_of(p).split("/")[0] in OWN_SIDE], ids=name_of)
def test_the_workers_files_import_their_own_side_only(path):
    allowed = ("tempo.wire", "tempo.ops", "tempo.errors", "tempo.memory", "tempo.worker")
    ours = [m for m in imports_of(path) if m == "tempo" or m.startswith("tempo.")]
    foreign = [m for m in ours if not any(m == a or m.startswith(f"{a}.") for a in allowed)]
    # `from tempo.wire import x` names tempo.wire only; a bare `import tempo` would reach everything.
    assert foreign == []
    # Nor by name at run time.
    loaders = {"import_module", "__import__", "exec", "eval", "find_spec", "run_module", "run_path"}
    used = {n.id for n in ast.walk(tree_of(path)) if isinstance(n, ast.Name)}
    used |= {n.attr for n in ast.walk(tree_of(path)) if isinstance(n, ast.Attribute)}
    assert not used & (loaders - {"eval"})
    assert "eval" not in used


def test_the_pool_knows_nothing_of_ours():
    assert not [m for m in imports_of(PACKAGE / "memory.py") if m.startswith("tempo")]


@pytest.mark.parametrize("path", [p for p in FILES if name_of(p).split("/")[0] == "ops"], ids=name_of)
def test_the_operation_knows_neither_side(path):
    ours = [m for m in imports_of(path) if m.startswith("tempo.")]
    assert all(m.split(".")[1] in ("ops", "errors") for m in ours)


@pytest.mark.parametrize(
    "path", [p for p in FILES if name_of(p).split("/")[0] in ("fleet", "wire")], ids=name_of
)
def test_whatever_holds_a_socket_knows_no_key(path):
    knows = ("secrecy", "integrity", "engine", "facade", "run", "watch", "sharing")
    assert not [m for m in imports_of(path) if m.startswith("tempo.") and m.split(".")[1] in knows]


VAULT = [p for p in FILES if name_of(p).startswith("trust/vault/")]


@pytest.mark.security
@pytest.mark.parametrize("path", VAULT, ids=name_of)
def test_the_vault_knows_nothing_of_training(path):
    """It runs in-house and holds all keys: evidence, sealed keys, the log and the wire, no more."""
    allowed = ("tempo.trust", "tempo.wire", "tempo.errors", "tempo.kernels.hidden")
    ours = [m for m in imports_of(path) if m == "tempo" or m.startswith("tempo.")]
    assert [m for m in ours if not any(m == a or m.startswith(f"{a}.") for a in allowed)] == []
    modules = {m.split(".")[0] for m in imports_of(path)}
    assert not modules & {"torch", "numpy", "secrets"}
    draws = {n.attr for n in ast.walk(tree_of(path)) if isinstance(n, ast.Attribute)}
    # `random` serves to drop a stranger's connection: the system's generator, and no key.
    assert not draws & (DRAWS - {"SystemRandom"})


# ---- unverified replies ------------------------------------------------------------------------


@pytest.mark.security
def test_only_integrity_opens_an_unverified_reply():
    openers, peekers = set(), set()
    for path in FILES:
        text = path.read_text()
        if "open_for_check" in text:
            openers.add(name_of(path))
        if any(isinstance(n, ast.Attribute) and n.attr == "_tensor" for n in ast.walk(tree_of(path))):
            peekers.add(name_of(path))
    assert openers == {"ops/unverified.py", "integrity/freivalds.py", "integrity/exact.py"}
    assert peekers == {"ops/unverified.py"}


@pytest.mark.security
def test_nobody_reaches_attributes_by_a_name_in_a_string_to_open_one():
    for path in FILES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Constant) and node.value in ("open_for_check", "_tensor"):
                # __slots__ of the type itself.
                assert name_of(path) == "ops/unverified.py"


# ---- generators --------------------------------------------------------------------------------

SECRET = ("secrecy", "integrity", "kernels", "sharing")
SECRET_FILES = [p for p in FILES if name_of(p).split("/")[0] in SECRET]

DRAWS = {
    *("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like"),
    *("bernoulli", "bernoulli_", "multinomial", "poisson", "binomial"),
    *("normal_", "uniform_", "random_", "exponential_", "cauchy_", "geometric_", "log_normal_"),
    *("Generator", "manual_seed", "seed", "initial_seed", "default_generator", "fork_rng", "set_rng_state"),
    *("default_rng", "RandomState", "SystemRandom", "shuffle", "dropout", "trunc_normal_"),
    *("xavier_uniform_", "kaiming_uniform_", "orthogonal_"),
}


@pytest.mark.security
@pytest.mark.parametrize("path", SECRET_FILES, ids=name_of)
def test_secrets_come_from_our_own_stream_alone(path):
    tree = tree_of(path)
    modules = {m.split(".")[0] for m in imports_of(path)}
    assert not modules & {"random", "numpy", "secrets", "time", "uuid"}
    assert not [m for m in imports_of(path) if m.startswith("torch.") and "random" in m]
    used = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    used |= {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    assert not used & DRAWS
    normals = [
        n
        for n in ast.walk(tree)
        if isinstance(n, ast.Attribute) and n.attr in ("normal", "random") and isinstance(n.value, ast.Name)
    ]
    assert not [n for n in normals if n.value.id in ("torch", "np", "numpy", "os")]
    # The operating system is asked in one place: for the root key.
    assert ("urandom" in used) == (name_of(path) == "secrecy/keys.py")


def test_the_root_key_is_the_one_draw_from_the_operating_system():
    text = (PACKAGE / "secrecy" / "keys.py").read_text()
    assert text.count("urandom") == 1
    assert "os.urandom(32)" in text


# ---- code that comes as data -------------------------------------------------------------------

#: Reads arrays out of a downloaded pickle with an unpickler that knows three stand-ins.
UNPICKLER = "demo/unpickle.py"
#: Talks to processes that it started itself, through a pipe that nobody else holds.
OWN_PROCESSES = "attacks/suite/pool.py"
RUNS_DATA = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "code"}


@pytest.mark.security
@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_runs_code_that_came_as_data(path):
    modules = {m.split(".")[0] for m in imports_of(path)}
    assert modules & RUNS_DATA == ({"pickle"} if name_of(path) == UNPICKLER else set())
    own = name_of(path) == OWN_PROCESSES
    assert own or not any("multiprocessing" in m for m in imports_of(path))
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Name):
                assert called.id not in ("eval", "exec", "compile", "__import__"), f"line {node.lineno}"
            elif isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
                whose = (called.value.id, called.attr)
                assert whose not in {("torch", "load"), ("os", "system"), ("yaml", "load")}
                if whose[0] == "pickle":
                    pytest.fail(f"{whose} at line {node.lineno}: only the restricted Unpickler is used")
                if called.attr == "load" and whose[0] in ("np", "numpy"):
                    allowed = [k for k in node.keywords if k.arg == "allow_pickle"]
                    assert all(isinstance(k.value, ast.Constant) and k.value.value is False for k in allowed)
            for keyword in node.keywords:
                # The script of a completion names the shell that reads it, and runs none.
                if keyword.arg == "shell" and ast.unparse(called) != "get_completion_script":
                    assert getattr(keyword.value, "value", True) is False, f"a shell at line {node.lineno}"


@pytest.mark.security
def test_nothing_secret_is_asserted_away():
    """`assert` vanishes under -O: secrecy and integrity raise instead."""
    for path in SECRET_FILES:
        assert not [n for n in ast.walk(tree_of(path)) if isinstance(n, ast.Assert)], name_of(path)


ATTACKS = [
    f for f in FILES if f.parent.name == "attacks" and f.name not in ("truth.py", "record.py", "registry.py")
]


@pytest.mark.parametrize("path", ATTACKS, ids=name_of)
def test_attackers_see_neither_the_truth_nor_keys(path):
    """Only judges (tempo/attacks/score) may open the truth; an attack that reads it would prove nothing."""
    forbidden = (
        "tempo.attacks.truth",
        "tempo.attacks.record",
        "tempo.attacks.score",
        "tempo.truth",
        "tempo.secrecy",
    )
    found = [m for m in imports_of(path) if m.startswith(forbidden)]
    assert not found


def test_judges_exist_apart_from_attackers():
    assert ATTACKS
    assert (PACKAGE / "attacks" / "score").is_dir()
