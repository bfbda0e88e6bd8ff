# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Ends a command by a signal as soon as it has begun to write.

    interrupt.py SIGNAL PREFIX COMMAND...

It has begun when there is a path that starts with PREFIX. Prints the signal
that the command ended by, and the paths that start with PREFIX after.
"""

import glob
import signal
import subprocess
import sys
import time


def main():
    name, prefix, command = sys.argv[1], sys.argv[2], sys.argv[3:]
    # Who runs tests may ignore it, and children inherit that.
    signal.signal(signal.Signals[name], signal.SIG_DFL)
    process = subprocess.Popen(command)
    while not glob.glob(prefix + "*") and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.Signals[name])
    code = process.wait()
    print("ended by", signal.Signals(-code).name if code < 0 else code)
    print("left:", *sorted(glob.glob(prefix + "*")))


main()
