"""Gathers the facts: all input and output of the doctor, and no judgement."""

from mangacache.diagnosis.gathering.edge import Edge

__all__ = ["Edge"]
