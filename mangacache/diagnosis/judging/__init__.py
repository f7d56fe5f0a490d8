"""Judgements: what was seen, in; findings, out. No judgement looks at anything itself."""
