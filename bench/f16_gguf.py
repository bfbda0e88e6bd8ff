#!/usr/bin/env python3
"""Writes a GGUF model anew with F16 matrices and F32 vectors, metadata copied.

So that two programs can be compared on the same unquantised weights.

usage: f16_gguf.py IN.gguf OUT.gguf
"""

import os
import sys

import gguf
import numpy as np


def convert(source, target):
    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    part = target + ".part"
    writer = gguf.GGUFWriter(part, architecture)
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in (
            "general.architecture",
            "general.file_type",
            "general.quantization_version",
        ):
            continue
        kind = field.types[0]
        element = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=element)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        wide = len(tensor.shape) > 1
        writer.add_tensor(tensor.name, values.astype(np.float16 if wide else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(part, target)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__.strip().splitlines()[-1])
    convert(*sys.argv[1:])
