//===- HostTarget.cpp - Whether this CPU can run a package ----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "HostTarget.h"

#include <algorithm>
#include <span>

using namespace kvrm;

Status kvrm::checkCpuFeatures(const std::vector<std::string> &features,
                              std::string_view where) {
  struct Feature {
    const char *name;
    bool isThere;
  };
#if defined(__x86_64__)
  __builtin_cpu_init();
#define KVRM_FEATURE(name) {name, __builtin_cpu_supports(name) != 0}
  static const Feature table[] = {
      KVRM_FEATURE("sse2"),
      KVRM_FEATURE("sse3"),
      KVRM_FEATURE("ssse3"),
      KVRM_FEATURE("sse4.1"),
      KVRM_FEATURE("sse4.2"),
      KVRM_FEATURE("popcnt"),
      KVRM_FEATURE("avx"),
      KVRM_FEATURE("avx2"),
      KVRM_FEATURE("fma"),
      KVRM_FEATURE("f16c"),
      KVRM_FEATURE("bmi"),
      KVRM_FEATURE("bmi2"),
      KVRM_FEATURE("lzcnt"),
      KVRM_FEATURE("movbe"),
      KVRM_FEATURE("avx512f"),
      KVRM_FEATURE("avx512bw"),
      KVRM_FEATURE("avx512cd"),
      KVRM_FEATURE("avx512dq"),
      KVRM_FEATURE("avx512vl"),
      KVRM_FEATURE("avx512vbmi"),
      KVRM_FEATURE("avx512vbmi2"),
      KVRM_FEATURE("avx512ifma"),
      KVRM_FEATURE("avx512vnni"),
      KVRM_FEATURE("avx512bitalg"),
      KVRM_FEATURE("avx512bf16"),
      KVRM_FEATURE("avx512fp16"),
      KVRM_FEATURE("avx512vpopcntdq"),
      KVRM_FEATURE("avx512vp2intersect"),
      KVRM_FEATURE("avxvnni"),
      KVRM_FEATURE("vaes"),
      KVRM_FEATURE("vpclmulqdq"),
      KVRM_FEATURE("gfni"),
      KVRM_FEATURE("amx-tile"),
      KVRM_FEATURE("amx-int8"),
      KVRM_FEATURE("amx-bf16"),
  };
#undef KVRM_FEATURE
  const std::span<const Feature> known(table);
#else
  const std::span<const Feature> known;
#endif
  for (const std::string &name : features) {
    auto found = std::ranges::find_if(
        known, [&](const Feature &feature) { return name == feature.name; });
    if (found == known.end())
      return makeError(StatusCode::Incompatible, where, ": target.requires: '",
                       name, "' is not a CPU feature that this runtime knows");
    if (!found->isThere)
      return makeError(StatusCode::Incompatible, where,
                       ": target.requires: this CPU has no ", name);
  }
  return Status::ok();
}

Status kvrm::checkTriple(const std::string &triple, std::string_view where) {
#if defined(__x86_64__)
  const std::string_view here = "x86_64-";
#elif defined(__aarch64__)
  const std::string_view here = "aarch64-";
#else
  const std::string_view here = "";
#endif
  if (triple.compare(0, here.size(), here) != 0)
    return makeError(StatusCode::Incompatible, where, ": target.triple: '",
                     triple, "' is not for this machine (", here, "...)");
  return Status::ok();
}
