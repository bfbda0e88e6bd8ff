//===- GGUFFuzzer.cpp - GGUF files, and the models in them ----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Reads a file's structure, every value and tensor of it, and, if it holds a
// Llama decoder, the weights and the tokenizer as a package has them, and the
// decoder's IR.
//
//===----------------------------------------------------------------------===//

#include "Fuzz.h"
#include "kvrm/Frontend/BlockCodes.h"
#include "kvrm/Frontend/DecoderBuilder.h"
#include "kvrm/Frontend/GGUF.h"
#include "kvrm/Frontend/Model.h"
#include "kvrm/Package/Package.h"

#include "mlir/IR/MLIRContext.h"
#include "mlir/IR/Verifier.h"

#include <string>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

using namespace kvrm;

static void checkError(llvm::Error error) {
  fuzz::check(bool(error), "a failure has an error");
  fuzz::checkMessage(llvm::toString(std::move(error)));
}

/// Either a value or a message, as every lookup has to answer.
template <typename T> static void answer(llvm::Expected<T> value) {
  if (!value)
    checkError(value.takeError());
}

static void readFile(const GGUFFile &file) {
  for (const char *key :
       {"general.architecture", "general.name", "general.alignment",
        "llama.block_count", "tokenizer.ggml.tokens", "tokenizer.ggml.scores",
        "tokenizer.ggml.token_type", "llama.rope.freq_base", "a"}) {
    answer(file.getInt(key));
    answer(file.getFloat(key));
    answer(file.getBool(key));
    answer(file.getString(key));
    answer(file.getStrings(key));
    answer(file.getInts(key));
    answer(file.getInt(key, 1));
    answer(file.getString(key, "absent"));
  }
  for (const GGUFTensor &tensor : file.tensors()) {
    fuzz::check(file.tensor(tensor.name) == &tensor, "a tensor has its name");
    // The first and the last row; all of them may be many files long.
    std::vector<float> row(static_cast<size_t>(tensor.cols()));
    auto rowBytes = tensor.bytes / static_cast<uint64_t>(tensor.rows());
    for (int64_t index : {int64_t(0), tensor.rows() - 1})
      dequantize(tensor.type,
                 tensor.data + static_cast<uint64_t>(index) * rowBytes,
                 tensor.cols(), row.data());
  }
}

static void readWeight(const WeightSource &source) {
  std::vector<float> values(static_cast<size_t>(source.cols()));
  for (int64_t row = 0; row < std::min<int64_t>(source.rows(), 64); ++row)
    source.readRows(row, row + 1, values.data());
  source.readRows(source.rows() - 1, source.rows(), values.data());
  std::optional<BlockFormat> format = source.blockFormat();
  if (!format)
    return;
  const GGMLTypeInfo &info = infoOf(typeOf(*format));
  auto blocks = static_cast<size_t>(source.cols() / info.blockElements);
  std::vector<uint8_t> row(blocks * static_cast<size_t>(info.blockBytes));
  source.readBlocks(source.rows() - 1, source.rows(), row.data());
  for (size_t i = 0; i < row.size();
       i += static_cast<size_t>(info.blockBytes)) {
    BlockCodes block;
    unpackBlock(*format, row.data() + i, block);
  }
}

static void buildModel(const DecoderModel &model) {
  const DecoderConfig &config = model.config;
  for (const WeightShape &weight : weightsOf(config))
    readWeight(*model.lookup(weight.name));
  if (model.tokenizer) {
    std::string text;
    llvm::raw_string_ostream os(text);
    writeTokenizer(os, *model.tokenizer);
  }
  if (config.layers > 2)
    return;
  // Types live as long as their context.
  static std::unique_ptr<mlir::MLIRContext> context;
  static int uses = 0;
  if (uses++ % 512 == 0) {
    context = std::make_unique<mlir::MLIRContext>(
        mlir::MLIRContext::Threading::DISABLED);
    context->getDiagEngine().registerHandler([](mlir::Diagnostic &) {});
  }
  GraphShape shape{2, 32, 4};
  shape.pieces = model.matricesInBlocks();
  auto module = buildDecoder(*context, config, shape);
  if (!module) {
    checkError(module.takeError());
    return;
  }
  fuzz::check(succeeded(mlir::verify(**module)), "a decoder is valid IR");
}

namespace {
/// A file in memory, which can be opened by its path.
class MemoryFile {
public:
  MemoryFile(const uint8_t *data, size_t size)
      : descriptor(memfd_create("kvrm-fuzz", MFD_CLOEXEC)) {
    fuzz::check(descriptor >= 0, "there is room for a file");
    fuzz::check(::write(descriptor, data, size) == static_cast<ssize_t>(size),
                "a file can be written");
  }
  ~MemoryFile() { ::close(descriptor); }
  MemoryFile(const MemoryFile &) = delete;
  MemoryFile &operator=(const MemoryFile &) = delete;

  std::string path() const {
    return "/proc/self/fd/" + std::to_string(descriptor);
  }

private:
  int descriptor;
};
} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  // Not zero-terminated: a read past the end is to be seen.
  auto file = GGUFFile::parse(
      llvm::MemoryBuffer::getMemBuffer(fuzz::textOf(data, size), "model.gguf",
                                       /*RequiresNullTerminator=*/false));
  if (!file) {
    checkError(file.takeError());
    return 0;
  }
  readFile(**file);
  MemoryFile onDisk(data, size);
  llvm::Expected<DecoderModel> model = openGGUF(onDisk.path());
  if (!model)
    checkError(model.takeError());
  else
    buildModel(*model);
  return 0;
}
