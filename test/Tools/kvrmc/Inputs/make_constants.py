# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Writes a decode step with its weights in the graph: STEP.mlir OUT.mlir."""

import random
import re
import sys

random.seed(3)
with open(sys.argv[1]) as file:
    text = file.read()
weight = re.compile(r'%(\w+): tensor<([0-9x]+)xf32> \{kvrm\.name = "\w+"\},\s*')
constants = ""
for name, sizes in weight.findall(text):
    shape = [int(size) for size in sizes.split("x")]

    def values(dims):
        if not dims:
            return f"{random.uniform(-0.2, 0.2):.4f}"
        return "[" + ", ".join(values(dims[1:]) for _ in range(dims[0])) + "]"

    constants += f"  %{name} = arith.constant dense<{values(shape)}> : tensor<{sizes}xf32>\n"
text = weight.sub("", text)
head, body = text.split("tensor<1xi64>) {\n", 1)
with open(sys.argv[2], "w") as file:
    file.write(head + "tensor<1xi64>) {\n" + constants + body)
