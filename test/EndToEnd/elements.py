# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Elements of a cache, by their definitions: what f32 values are rounded to, codes
of e4m3, and codes of int8 with their scales. Nothing is shared with kvrm."""

import numpy as np

F8_LARGEST = 448.0
F8_NAN = 0x7F


def encode_f8(values):
    """f32 values to codes of e4m3: nearest, ties to even, over 448 cut off."""
    with np.errstate(invalid="ignore"):
        values = np.asarray(values, np.float32).astype(np.float64)
    sign = np.where(np.signbit(values), 0x80, 0).astype(np.uint8)
    is_nan = np.isnan(values)
    size = np.where(is_nan, 0.0, np.minimum(np.abs(values), F8_LARGEST))
    # size = m * 2^e with m in [1/2, 1); numbers below 2^-6 are subnormal.
    exponent = np.maximum(np.frexp(size)[1] - 1, -6)
    exponent[size == 0] = -6
    # In units of the last place; a carry moves the exponent.
    units = np.rint(np.ldexp(size, 3 - exponent)).astype(np.int64)
    codes = (((exponent.astype(np.int64) + 6) << 3) + units).astype(np.uint8)
    return np.where(is_nan, np.uint8(F8_NAN), codes) | sign


def decode_f8(codes):
    codes = np.asarray(codes, np.uint8).astype(np.int64)
    exponent, units = codes >> 3 & 15, codes & 7
    size = np.where(
        exponent == 0,
        np.ldexp(units.astype(np.float64), -9),
        np.ldexp(units + 8.0, exponent - 10),
    )
    size = np.where((codes & 0x7F) == F8_NAN, np.nan, size)
    return np.where(codes & 0x80, -size, size)


def scales_of(values):
    """Scales of int8, one for each row of f32 values, as the bits of a bf16: the
    least number that makes no code larger than 127; 0 for rows of less than
    127 * 2^-126, infinite or NaN for those with such values."""
    with np.errstate(invalid="ignore"):
        largest = np.abs(np.asarray(values, np.float32)).max(-1)  # NaN if one is
        bits = (largest / np.float32(127)).astype(np.float32).view(np.uint32)
    scales = (bits.astype(np.int64) + 0xFFFF) >> 16
    scales = np.where(largest < 127 * 2.0**-126, 0, scales)
    return np.where(np.isnan(largest), 0x7FC0, scales).astype(np.uint16)


def widen_scales(scales):
    return (np.asarray(scales, np.uint16).astype(np.uint32) << np.uint32(16)).view(
        np.float32
    )


def encode_int8(values):
    """Codes of rows of f32 values: the nearest multiple of the scale, the even one
    of two; 0 where the scale is 0 or no number."""
    scales = widen_scales(scales_of(values))[..., None]
    with np.errstate(invalid="ignore", divide="ignore"):
        codes = np.rint(np.asarray(values, np.float32) / scales)
    is_number = (scales > 0) & np.isfinite(scales)
    codes = np.where(is_number, codes, 0)
    assert np.abs(codes).max() <= 127
    return codes.astype(np.int8).view(np.uint8)


def decode_int8(codes, scales):
    with np.errstate(invalid="ignore"):
        return np.asarray(codes, np.uint8).view(np.int8) * widen_scales(scales)[
            ..., None
        ].astype(np.float64)


def rounded(values, element):
    """What a cache of `element` has of values, by way of f32, in float64. Of int8
    a row, which shares a scale, is the last axis."""
    single = np.ascontiguousarray(values, np.float32)
    if element == "int8":
        return decode_int8(encode_int8(single), scales_of(single))
    if element == "f8e4m3":
        return decode_f8(encode_f8(single))
    if element == "f16":
        return single.astype(np.float16).astype(np.float64)
    assert element == "bf16"
    bits = single.view(np.uint32)
    bits = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (bits & np.uint32(0xFFFF0000)).view(np.float32).astype(np.float64)


def codes_of(values, element):
    """f32 values as the bytes of a pool, in numbers of its element's size."""
    if element == "f8e4m3":
        return encode_f8(values)
    if element == "int8":
        return encode_int8(values)
    if element == "f16":
        return np.ascontiguousarray(values, np.float32).astype(np.float16).view(np.uint16)
    bits = rounded(values, "bf16").astype(np.float32).view(np.uint32)
    return (bits >> np.uint32(16)).astype(np.uint16)
