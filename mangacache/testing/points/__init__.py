"""Named points on the way of a call at which a test has a process be killed, stopped, delayed, or a call fail."""

from __future__ import annotations

from mangacache.testing.points.doors import KILLED, VARIABLE, FaultPoints
from mangacache.testing.points.plans import POINTS, Action, Plan, Point, parse_plans

__all__ = ["KILLED", "POINTS", "VARIABLE", "Action", "FaultPoints", "Plan", "Point", "parse_plans"]
