"""Runs a program once, on two cores, and tells what it took: once.py OUTPUT COMMAND…

A process of its own, as small as can be: the kernel counts what its parent had as the most memory a program had.
"""
import os
import sys
import time

output, *command = sys.argv[1:]
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
files = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0), (os.POSIX_SPAWN_OPEN, 1, output, flags, 0o600)]
begun = time.monotonic()
_, status, usage = os.wait4(os.posix_spawnp(command[0], command, os.environ, file_actions=files), 0)
seconds = time.monotonic() - begun
print(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, os.waitstatus_to_exitcode(status))
