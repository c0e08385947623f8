#!/usr/bin/env python3
"""How long `audit-log sweep` takes over large trees, and whether its memory stays flat.

    cargo build --release && python3 bench/sweep.py

Makes trees of 1 %, 10 % and 100 % of --segments, each with --per-folder segments of 20 lines a job folder, half of them
too old; sweeps each dry, then for real; prints seconds and the peak resident memory of the sweep. The trees are made
in a temporary folder (--data says where) and removed.
"""
import argparse
import datetime
import os
import shutil
import subprocess
import tempfile
import time

DAY = 86_400


def make(root, segments, per_folder):
    """A tree whose every other folder is 400 days old."""
    now = time.time()
    line = '{"ts":"%s","jobId":"1","workspaceId":"w","event":"DATA_EXPORT","message":"","meta":null}\n'
    for job in range(segments // per_folder):
        folder = f"{root}/{job}"
        os.mkdir(folder)
        for number in range(per_folder):
            at = now - (400 if job % 2 else 1) * DAY - number
            when = datetime.datetime.fromtimestamp(at, datetime.timezone.utc)
            name = f"{folder}/audit-0_{when:%Y%m%dT%H%M%S}.{number:03}Z.jsonl"
            with open(name, "w") as segment:
                segment.write(line % f"{when:%Y-%m-%dT%H:%M:%S}.{number:03}Z" * 20)
            os.utime(name, (at, at))


def sweep(binary, config, root, *flags):
    """Prints seconds and peak resident memory of one sweep."""
    begun = time.perf_counter()
    command = [binary, "sweep", root, "--config", config, *flags]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        try:
            with open(f"/proc/{process.pid}/status") as status:
                # The high-water mark of the program itself; getrusage would count the fork before it as well.
                peak = next((int(line.split()[1]) for line in status if line.startswith("VmHWM:")), peak)
        except OSError:
            pass
        time.sleep(0.005)
    seconds = time.perf_counter() - begun
    if process.returncode:
        raise SystemExit("the sweep failed")
    print(f"{' '.join(flags) or 'sweep':>12} {seconds:10.2f} s {peak / 1024:8.1f} MiB", flush=True)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--binary", default="target/release/audit-log")
    arguments.add_argument("--segments", type=int, default=900_000)
    arguments.add_argument("--per-folder", type=int, default=1)
    arguments.add_argument("--data", help="a folder on the file system to be measured")
    a = arguments.parse_args()
    for share in (100, 10, 1):
        segments = a.segments // share
        root = tempfile.mkdtemp(prefix="sweep-", dir=a.data)
        try:
            config = f"{root}.yaml"
            with open(config, "w") as file:
                file.write("provider: {auditLog: {retentionPeriodInDays: 180}}\n")
            begun = time.perf_counter()
            make(root, segments, a.per_folder)
            print(f"{segments} segments in {segments // a.per_folder} folders, made in {time.perf_counter() - begun:.1f} s", flush=True)
            sweep(a.binary, config, root, "--dry-run")
            sweep(a.binary, config, root)
            left = sum(len(files) for _, _, files in os.walk(root))
            assert left == segments - segments // a.per_folder // 2 * a.per_folder, left
        finally:
            shutil.rmtree(root)
            os.unlink(config)


if __name__ == "__main__":
    main()
