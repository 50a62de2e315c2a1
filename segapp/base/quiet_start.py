"""Imported first by the tools: Ctrl-C during their other imports, which take seconds, leaves no traceback."""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored, as in the background of a shell
    signal.signal(signal.SIGINT, signal.SIG_DFL)
