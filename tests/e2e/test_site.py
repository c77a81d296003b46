"""The site is built without a warning, and fetches nothing from elsewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs")
pytest.importorskip("material")
pytest.importorskip("mkdocstrings")

PROJECT = Path(__file__).resolve().parents[2]
#: What a page loads by itself; links that a reader follows are another matter.
LOADED = re.compile(
    r'<(?:script|img|iframe|link[^>]*rel="?(?:stylesheet|preconnect)"?)[^>]*(?:src|href)="?(https?:[^"\s>]+)'
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def test_pages_load_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    found = {url for page in pages for url in LOADED.findall(page.read_text())}
    assert found == set()


def test_every_verb_has_its_help_and_the_public_names_are_described(site):
    help_text = (site / "cli" / "index.html").read_text()
    for verb in ("tempo attack", "tempo vault rotate", "tempo worker issue", "tempo log verify"):
        assert f"Usage: {verb}" in help_text
    names = (site / "api" / "index.html").read_text()
    for name in ("Session.protect", "Config", "SealedDataset", "TamperedError"):
        assert name in names


def test_links_out_of_the_documents_became_names(site):
    assert 'href="../../README.md' not in (site / "quickstart" / "index.html").read_text()
