"""A worker process of a replay: `python -m mangacache.replay`; started by `workers.py`, not by hand."""

from mangacache.replay.workers import main

main()
