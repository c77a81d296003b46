"""Each family in a process of its own, with limits on time and memory; what is known already is not redone.

A server that has imported the libraries once forks a process per family: importing takes longer than judging.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Iterable
from multiprocessing.process import BaseProcess
from pathlib import Path

from benchmarks.coverage.judge import NOT_RUN, Verdict, brief, judge
from benchmarks.coverage.subject import NotRunnableError, Recipe

Recipes = Callable[[str], Recipe]

#: Wall seconds allowed for each second of the processor: other work goes on beside this.
_WAITING = 2.5


def run(
    library: str,
    recipes: Recipes,
    families: Iterable[str],
    out: Path,
    *,
    jobs: int,
    seconds: float,
    gigabytes: float,
    say: Callable[[str], None],
    preload: str = "benchmarks.coverage.preload",
) -> None:
    """Append a verdict for each family that `out` has none of. seconds: of the processor, for one family."""
    known = {(row["library"], row["family"]) for row in read(out)}
    waiting = [family for family in families if (library, family) not in known]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    running: dict[BaseProcess, tuple[str, float, Path]] = {}
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                family = waiting.pop(0)
                path = out.with_suffix(f".{os.getpid()}.{len(waiting)}.part")
                process = context.Process(
                    target=_child, args=(recipes, library, family, path, seconds, gigabytes)
                )
                process.start()
                running[process] = (family, time.monotonic(), path)
            time.sleep(0.05)
            for process, (family, started, path) in list(running.items()):
                late = time.monotonic() - started > _WAITING * seconds
                if process.is_alive() and not late:
                    continue
                if process.is_alive():
                    process.kill()
                process.join()
                del running[process]
                row = _result(library, family, path, process.exitcode, late, seconds)
                row["wall_seconds"] = round(time.monotonic() - started, 2)
                with out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                say(f"{library} {family}: {row['status']} {row['reason'][:160]}")
    finally:
        for process, (_, _, path) in running.items():
            process.kill()
            process.join()
            path.unlink(missing_ok=True)


def read(out: Path) -> list[dict[str, object]]:
    """What an earlier run found; the last of several verdicts on one family counts."""
    if not out.exists():
        return []
    rows = [json.loads(line) for line in out.read_text().splitlines() if line.strip()]
    return list({(row["library"], row["family"]): row for row in rows}.values())


def one(recipes: Recipes, library: str, family: str) -> Verdict:
    """In this process."""
    try:
        return judge(recipes(family))
    except NotRunnableError as error:
        return Verdict(library, family, "", NOT_RUN, str(error))


def _child(recipes: Recipes, library: str, family: str, path: Path, seconds: float, gigabytes: float) -> None:
    limit = int(gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 5))
    import torch

    torch.set_num_threads(1)
    try:
        verdict = one(recipes, library, family)
    except MemoryError:
        verdict = Verdict(library, family, "", NOT_RUN, f"needs more than {gigabytes:g} GB")
    except Exception as error:
        verdict = Verdict(library, family, "", NOT_RUN, f"the harness: {brief(error)}")
    path.write_text(json.dumps(verdict.to_dict()))


def _result(
    library: str, family: str, path: Path, code: int | None, late: bool, seconds: float
) -> dict[str, object]:
    if path.exists():
        row: dict[str, object] = json.loads(path.read_text())
        path.unlink()
        return row
    late = late or code == -signal.SIGXCPU
    why = f"takes more than {seconds:g} s" if late else f"the process ended with {code}"
    return Verdict(library, family, "", NOT_RUN, why).to_dict()
