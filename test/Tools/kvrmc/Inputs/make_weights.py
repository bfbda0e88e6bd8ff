"""Weights for EndToEnd/Inputs/step.mlir, whole, of a vocabulary of 300, or with
a fault: make_weights.py KIND OUTPUT"""

import os
import sys

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../../EndToEnd"))
from exported_step import random_tensors  # noqa: E402
from llama import write_safetensors  # noqa: E402

kind, output = sys.argv[1:]
tensors = random_tensors(np.random.default_rng(1))
if kind == "missing":
    del tensors["wq"], tensors["norm2"]
elif kind == "superfluous":
    tensors["bias"] = tensors["extra"] = tensors["norm1"]
elif kind == "wide":
    for name in ("embed", "head"):
        tensors[name] = np.resize(tensors[name], (300, 32))
elif kind == "shape":
    tensors["wk"] = tensors["wk"].T
elif kind == "integers":
    tensors["wo"] = tensors["wo"].astype(np.int32)
elif kind == "infinite":
    tensors["wv"][3, 2] = np.inf
write_safetensors(output, tensors)
