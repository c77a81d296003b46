"""What is worth sending: calibration, cost model, placement, money. docs/plan.md."""

from tempo.plan.auto import Auto
from tempo.plan.calibrate import calibrate
from tempo.plan.machine import Machine
from tempo.plan.plan import Plan, make_plan
from tempo.plan.trace import trace

__all__ = ["Auto", "Machine", "Plan", "calibrate", "make_plan", "trace"]
