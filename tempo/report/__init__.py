"""What a session did, for people and for machines."""

from tempo.report.log import JsonLines
from tempo.report.session import OpRow, Report

__all__ = ["JsonLines", "OpRow", "Report"]
