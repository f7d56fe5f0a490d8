"""Cells: one fault, one seed, one Redis server, real worker processes under load, and what came of it."""
