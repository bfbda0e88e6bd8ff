# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Runs a command whose standard output has no reader, with SIGPIPE ignored, as
programs that start others often leave it."""

import os
import signal
import subprocess
import sys


def main():
    reader, writer = os.pipe()
    os.close(reader)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    process = subprocess.run(sys.argv[1:], stdout=writer, restore_signals=False)
    print("ended with", process.returncode)


main()
