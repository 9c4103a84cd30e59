#!/usr/bin/env python3
"""What the disk alone costs: small writes at a steady rate, each made durable before the next.

    loadtest/sync.py DIRECTORY [PER_SECOND [SECONDS]]

Prints the percentiles in milliseconds of a write and its fdatasync, the least that an acknowledged send
can take.
"""
import os
import sys
import tempfile
import time

BYTES = 400  # About what the store writes for a push of 200 bytes.

directory = sys.argv[1]
per_second = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000
seconds = int(sys.argv[3]) if len(sys.argv) > 3 else 10

with tempfile.TemporaryFile(dir=directory) as file:
    took, begun = [], time.perf_counter()
    for number in range(per_second * seconds):
        due = begun + number / per_second
        time.sleep(max(0.0, due - time.perf_counter()))
        started = time.perf_counter()
        os.write(file.fileno(), b"x" * BYTES)
        os.fdatasync(file.fileno())
        took.append(1_000 * (time.perf_counter() - started))

took.sort()
shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
print(", ".join(f"{name} {took[int(share * len(took))]:.3f}" for name, share in shares.items()))
