//===- WeightsFile.cpp - weights.safetensors of a package -----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "WeightsFile.h"

#include "CheckedFile.h"

#include <algorithm>
#include <nlohmann/json.hpp>

using namespace kvrm;
using nlohmann::json;

static constexpr int64_t maxTensorHeaderBytes = 64 << 20;

/// Checks that every tensor lies in the data section at a multiple of 64.
static Status checkTensors(std::string_view header, int64_t dataBytes,
                           const std::string &path) {
  auto corrupt = [&](const auto &...parts) {
    return makeError(StatusCode::Corrupt, path, ": ", parts...);
  };
  json root = json::parse(header, nullptr, /*allow_exceptions=*/false);
  if (root.is_discarded() || !root.is_object())
    return corrupt("its header is not a JSON object");
  for (const auto &[name, tensor] : root.items()) {
    if (name == "__metadata__")
      continue;
    if (!tensor.is_object() || !tensor.contains("data_offsets"))
      return corrupt("tensor '", name, "' has no data_offsets");
    const json &offsets = tensor["data_offsets"];
    if (!offsets.is_array() || offsets.size() != 2 ||
        !offsets[0].is_number_unsigned() || !offsets[1].is_number_unsigned())
      return corrupt("tensor '", name, "': data_offsets are not two offsets");
    auto begin = offsets[0].get<uint64_t>();
    auto end = offsets[1].get<uint64_t>();
    if (begin > end || end > static_cast<uint64_t>(dataBytes))
      return corrupt("tensor '", name, "': bytes ", begin, "..", end,
                     " are outside the data section of ", dataBytes);
    // Gaps between tensors are covered by tensors too, which nobody reads.
    if (begin % KVRM_ALIGNMENT != 0 && !name.starts_with("__pad."))
      return corrupt("tensor '", name, "': offset ", begin,
                     " is not a multiple of ", int32_t(KVRM_ALIGNMENT));
  }
  return Status::ok();
}

Expected<AlignedBuffer> kvrm::loadWeights(const std::string &path,
                                          const FileInfo &want) {
  Expected<CheckedFile> file = CheckedFile::open(path);
  KVRM_TRY(file.status());
  KVRM_TRY(file->checkSize(want));
  uint8_t lengthBytes[8];
  if (file->bytes() < int64_t(sizeof(lengthBytes)))
    return makeError(StatusCode::Corrupt, path, ": has no safetensors header");
  KVRM_TRY(file->read(lengthBytes, sizeof(lengthBytes)));
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i)
    length = length << 8 | lengthBytes[i];
  int64_t rest = file->bytes() - int64_t(sizeof(lengthBytes));
  if (length > static_cast<uint64_t>(std::min(rest, maxTensorHeaderBytes)))
    return makeError(StatusCode::Corrupt, path, ": header length ", length,
                     " is outside 0..", std::min(rest, maxTensorHeaderBytes));
  std::string header(static_cast<size_t>(length), '\0');
  KVRM_TRY(file->read(reinterpret_cast<uint8_t *>(header.data()),
                      static_cast<int64_t>(length)));
  int64_t dataBytes = rest - static_cast<int64_t>(length);
  KVRM_TRY(checkTensors(header, dataBytes, path));
  // Never null, also for a model without weights.
  Expected<AlignedBuffer> data =
      AlignedBuffer::create(std::max<int64_t>(dataBytes, 64), "weights");
  KVRM_TRY(data.status());
  KVRM_TRY(file->read(data->data(), dataBytes));
  KVRM_TRY(file->checkHash(want));
  return data;
}
