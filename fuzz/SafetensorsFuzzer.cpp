//===- SafetensorsFuzzer.cpp - safetensors of other people ----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The first byte says what follows: '0', the file as it is; else the header
// alone, in front of which goes its length and behind it 256 bytes of data.
//
//===----------------------------------------------------------------------===//

#include "Fuzz.h"
#include "kvrm/Frontend/Safetensors.h"

#include <string>
#include <vector>

using namespace kvrm;

static std::string withLength(std::string_view header) {
  uint64_t length = header.size();
  std::string bytes;
  for (int i = 0; i < 8; ++i)
    bytes.push_back(static_cast<char>(length >> (8 * i) & 0xff));
  bytes += header;
  bytes.resize(bytes.size() + 256);
  return bytes;
}

static void readTensor(const SafetensorsFile &file,
                       const SafetensorsTensor &tensor) {
  fuzz::check(file.tensor(tensor.name) == &tensor, "a tensor has its name");
  if (!isFloat(tensor.type))
    return;
  std::vector<float> values(static_cast<size_t>(tensor.elements()));
  convertToFloat(tensor.type, tensor.data, tensor.elements(), values.data());
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  std::string_view text = fuzz::textOf(data, size);
  if (text.empty())
    return 0;
  std::string bytes =
      text[0] == '0' ? std::string(text.substr(1)) : withLength(text.substr(1));
  // Not zero-terminated: a read past the end is to be seen.
  std::vector<char> exact(bytes.begin(), bytes.end());
  auto file = SafetensorsFile::parse(llvm::MemoryBuffer::getMemBuffer(
      llvm::StringRef(exact.data(), exact.size()), "model.safetensors",
      /*RequiresNullTerminator=*/false));
  if (!file) {
    fuzz::checkMessage(llvm::toString(file.takeError()));
    return 0;
  }
  for (const SafetensorsTensor &tensor : (*file)->tensors())
    readTensor(**file, tensor);
  return 0;
}
