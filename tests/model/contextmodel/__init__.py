"""The context protocol as an explicit-state model: every interleaving of a few operations, faults and clocks.

`rules` names each rule, so that it can be taken out. `versions` and `scripts` are what Redis decides, `writing`,
`reading` and `links` what a worker does step by step, `faults` what happens to them, `world` the state they share,
`exploring` the search. A state is a tuple of small tuples; a step is `(label, next state, kind)`.
"""
