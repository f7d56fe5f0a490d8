"""A simulator that owns time: the whole service on virtual clocks, with every choice made by a seed."""
