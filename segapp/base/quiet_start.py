"""Imported first by the tools, before anything that takes long or starts threads."""

import os
import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored, as in the background of a shell
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during imports, which take seconds, leaves no traceback

# How long OpenMP's threads turn round in wait for the next layer, before they sleep: GNU's 300,000 take the cores from
# other processes, and each waits for the other. Measured in docs/benchmarks.md; what a user sets stays.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
