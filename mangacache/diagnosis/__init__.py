"""What an operator asks: `mangacache doctor`, what is wrong with an installation; `mangacache inspect`, a session.

Both only read. The doors in `reading.py` let nothing else through, so that a slip here cannot change a table or a
Redis.
"""
