"""Pages: a run, or a plan, as one HTML file in English and Japanese."""

from tempo.report.page.plan_page import plan_page
from tempo.report.page.render import ready, render
from tempo.report.page.run_page import run_page

__all__ = ["plan_page", "ready", "render", "run_page"]
