"""DAX on this machine: a server that the real client talks to, in front of any DynamoDB."""

from mangacache.local.dax.emulator import DaxEmulator
from mangacache.local.dax.options import EmulatorOptions
from mangacache.local.dax.process import dax_process
from mangacache.local.dax.threaded import RunningEmulator, running_emulator

__all__ = ["DaxEmulator", "EmulatorOptions", "RunningEmulator", "dax_process", "running_emulator"]
