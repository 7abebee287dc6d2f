"""One peer in a process of its own: makes its received bytes ready, then
aggregates them whenever it is told to, and says how long that took and how much
memory it needed."""

import argparse
import ctypes
import gc
import importlib
import json
import sys
import time
from pathlib import Path

import numpy as np


def status(field: str) -> int:
    """Bytes of a field of the kernel's account of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status: expected a line {field}, found none")


def give_back() -> None:
    """Has the allocator return what it holds without need, so that what a run
    adds is not hidden by what another run, or making ready, left behind."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def measured(aggregate) -> tuple[dict, object]:
    """Runs once: seconds by the clock and on processors, what is resident before,
    the most during."""
    before = status("VmRSS:")
    Path("/proc/self/clear_refs").write_text("5")
    start, processors = time.perf_counter(), time.process_time()
    result = aggregate()
    seconds, processors = time.perf_counter() - start, time.process_time() - processors
    return {
        "seconds": seconds,
        "processor_seconds": processors,
        "resident_bytes": before,
        "peak_bytes": status("VmHWM:"),
    }, result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("module")
    parser.add_argument("rule")
    parser.add_argument("inputs", type=Path)
    arguments = parser.parse_args()
    # Nothing but replies goes to the driver: what a peer prints is for people.
    replies, sys.stdout = sys.stdout, sys.stderr

    peer = importlib.import_module(arguments.module).prepare(arguments.rule, arguments.inputs)
    print(json.dumps({"ready": True, "received_bytes": peer.received, "scale": peer.scale}),
          file=replies, flush=True)
    for line in sys.stdin:
        command, _, target = line.strip().partition(" ")
        if command != "run":
            raise SystemExit(f"expected `run` or `run FILE`, found {line!r}")
        # Not before the runs whose time counts: fresh pages would cost them time.
        if target:
            give_back()
        reply, result = measured(peer.aggregate)
        if target:
            with open(target, "wb") as file:
                for tensor in peer.opened(result):
                    np.asarray(tensor, "<f4").tofile(file)
        # The next run must not find the last result still there.
        del result
        gc.collect()
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
