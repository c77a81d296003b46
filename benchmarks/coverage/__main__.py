"""python -m benchmarks.coverage run | page"""

from __future__ import annotations

import argparse
import sys
from datetime import date
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from zlib import crc32

from benchmarks.coverage import preload as preload
from benchmarks.coverage import timm_models, transformers_models
from benchmarks.coverage.page import page
from benchmarks.coverage.pool import read, run

LIBRARIES = {"timm": timm_models, "transformers": transformers_models}
RESULTS = Path("build/coverage.jsonl")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    runs = verbs.add_parser("run", help="judge every family that there is no verdict on yet")
    runs.add_argument("--library", choices=list(LIBRARIES), action="append")
    runs.add_argument("--only", default="*", help="families by pattern, several separated by commas")
    runs.add_argument("--part", default="1/1", help="2/3: the second of every three families")
    runs.add_argument("--jobs", type=int, default=2)
    runs.add_argument("--seconds", type=float, default=100.0, help="of the processor, for one family")
    runs.add_argument("--gigabytes", type=float, default=8.0, help="of one family")
    pages = verbs.add_parser("page", help="write the table")
    pages.add_argument("--to", type=Path, default=Path("docs/coverage.md"))
    for each in (runs, pages):
        each.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.verb == "page":
        known = {library: len(module.families()) for library, module in LIBRARIES.items()}
        given.to.write_text(page(read(given.results), known, _environment()))
        return 0
    patterns = given.only.split(",")
    which, of = map(int, given.part.split("/"))
    for library in given.library or LIBRARIES:
        module = LIBRARIES[library]
        names = [n for n in module.families() if any(fnmatchcase(n, pattern) for pattern in patterns)]
        names.sort(key=lambda n: crc32(n.encode()))  # in no order of theirs: a run cut short is a fair sample
        run(
            library,
            module.recipe,
            names[which - 1 :: of],
            given.results,
            jobs=given.jobs,
            seconds=given.seconds,
            gigabytes=given.gigabytes,
            say=lambda text: print(text, file=sys.stderr, flush=True),
        )
    return 0


def _environment() -> str:
    names = ("torch", "timm", "transformers", "tempo-confidential")
    return f"Versions: {', '.join(f'{name} {version(name)}' for name in names)}; date: {date.today()}.\n"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # what is known is written; the next run goes on from there
        sys.exit(130)
