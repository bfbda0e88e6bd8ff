//===- FolderModel.cpp - Decoders in Hugging Face folders -----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A folder as transformers' save_pretrained() writes it: config.json, and
// model.safetensors or shards with model.safetensors.index.json. Of what else
// may lie there, generation_config.json and the tokenizer's files are read.
//
//===----------------------------------------------------------------------===//

#include "DecoderWeights.h"
#include "FolderConfig.h"
#include "FolderTokenizer.h"
#include "Lookup.h"

#include "kvrm/Frontend/JsonText.h"
#include "kvrm/Frontend/Model.h"
#include "kvrm/Frontend/Safetensors.h"

#include "llvm/ADT/StringSet.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/Path.h"

using namespace kvrm;
using llvm::ArrayRef;
using llvm::Error;
using llvm::Expected;
using llvm::formatv;
using llvm::StringRef;
using llvm::Twine;

//===----------------------------------------------------------------------===//
// Tensors
//===----------------------------------------------------------------------===//

namespace {
class TensorSource final : public WeightSource {
public:
  TensorSource(SafetensorsFile::Ptr file, const SafetensorsTensor &tensor,
               int64_t rowCount, int64_t colCount)
      : file(std::move(file)), tensor(tensor), rowCount(rowCount),
        colCount(colCount) {}

  int64_t rows() const override { return rowCount; }
  int64_t cols() const override { return colCount; }
  void readRows(int64_t begin, int64_t end, float *out) const override {
    convertToFloat(tensor.type,
                   tensor.data + begin * colCount * sizeOf(tensor.type),
                   (end - begin) * colCount, out);
  }
  std::string origin(int64_t) const override {
    return (file->name() + ": tensor '" + tensor.name + "'").str();
  }

private:
  SafetensorsFile::Ptr file; ///< keeps the mapping
  const SafetensorsTensor &tensor;
  int64_t rowCount;
  int64_t colCount;
};

class FolderTensors final : public TensorStore {
public:
  FolderTensors(const SafetensorsSet &files, StringRef architecture)
      : files(files), architecture(architecture) {}

  bool has(StringRef name) const override { return files.tensor(name).tensor; }
  Expected<SourcePtr> take(const Twine &name, int64_t rows,
                           int64_t cols) override;
  Error checkAllTaken() const override;
  /// Takes `name`, if it is there, as the copy of `original` that tied weights
  /// may have been written with. Refuses one that is something else.
  Error leaveOutCopy(StringRef name, StringRef original);

private:
  const SafetensorsSet &files;
  StringRef architecture;
  llvm::StringSet<> taken;
};
} // namespace

Expected<SourcePtr> FolderTensors::take(const Twine &name, int64_t rows,
                                        int64_t cols) {
  std::string text = name.str();
  SafetensorsSet::Found found = files.tensor(text);
  if (!found.tensor)
    return fileError(files.files().front()->name(),
                     "tensor '" + text + "' is missing");
  llvm::SmallVector<int64_t, 4> wanted = {rows};
  if (cols > 0)
    wanted.push_back(cols);
  const auto &shape = found.tensor->shape;
  if (ArrayRef(shape) != ArrayRef(wanted))
    return fileError(found.file->name(),
                     formatv("tensor '{0}': shape [{1:$[, ]}], expected "
                             "[{2:$[, ]}]",
                             text, llvm::make_range(shape.begin(), shape.end()),
                             llvm::make_range(wanted.begin(), wanted.end()))
                         .str());
  if (!isFloat(found.tensor->type))
    return fileError(found.file->name(), "tensor '" + text + "': elements of " +
                                             nameOf(found.tensor->type) +
                                             " are not supported");
  taken.insert(text);
  return std::make_unique<TensorSource>(found.file, *found.tensor, rows,
                                        std::max<int64_t>(cols, 1));
}

Error FolderTensors::leaveOutCopy(StringRef name, StringRef original) {
  SafetensorsSet::Found copy = files.tensor(name);
  if (!copy.tensor)
    return Error::success();
  taken.insert(name);
  SafetensorsSet::Found from = files.tensor(original);
  auto bytesOf = [](const SafetensorsTensor &tensor) {
    return ArrayRef(tensor.data, static_cast<size_t>(tensor.bytes));
  };
  if (from.tensor && copy.tensor->type == from.tensor->type &&
      copy.tensor->shape == from.tensor->shape &&
      bytesOf(*copy.tensor) == bytesOf(*from.tensor))
    return Error::success();
  // Versions of transformers take the one or the other.
  return fileError(copy.file->name(),
                   "tensor '" + name + "' is not the same as '" + original +
                       "', with which tie_word_embeddings says it is tied");
}

Error FolderTensors::checkAllTaken() const {
  for (const SafetensorsFile::Ptr &file : files.files())
    for (const SafetensorsTensor &tensor : file->tensors())
      if (!taken.contains(tensor.name) && !tensor.isDerived())
        return fileError(file->name(), "tensor '" + tensor.name +
                                           "' has no place in a '" +
                                           architecture + "' decoder");
  return Error::success();
}

//===----------------------------------------------------------------------===//
// The folder
//===----------------------------------------------------------------------===//

static std::string inFolder(StringRef folder, StringRef name) {
  llvm::SmallString<128> path(folder);
  llvm::sys::path::append(path, name);
  return path.str().str();
}

static Expected<SafetensorsSet> openTensors(StringRef folder) {
  // Where both are there, transformers take the one file.
  for (StringRef name : {"model.safetensors", "model.safetensors.index.json"})
    if (std::string path = inFolder(folder, name); llvm::sys::fs::exists(path))
      return SafetensorsSet::open(path);
  return fileError(folder, "has neither model.safetensors nor "
                           "model.safetensors.index.json");
}

/// Notes what is read of a folder but for weights, so that nothing overwrites
/// it.
static void listFiles(StringRef folder, DecoderModel &model) {
  for (StringRef name : {"config.json", "generation_config.json",
                         "tokenizer.json", "tokenizer_config.json",
                         "chat_template.jinja", "special_tokens_map.json"})
    if (std::string path = inFolder(folder, name); llvm::sys::fs::exists(path))
      model.files.push_back(std::move(path));
}

/// Tokens that end a turn, of which generation_config.json often knows more.
static Error readGenerationConfig(StringRef folder, DecoderConfig &config) {
  std::string path = inFolder(folder, "generation_config.json");
  if (!llvm::sys::fs::exists(path))
    return Error::success();
  Expected<llvm::json::Object> root = readJsonObject(path);
  if (!root)
    return root.takeError();
  Expected<std::vector<int32_t>> ends =
      readTokenIds(JsonFields(*root, path), "eos_token_id", config.vocabulary);
  if (!ends)
    return ends.takeError();
  for (int32_t id : *ends)
    config.addEnd(id);
  return Error::success();
}

/// What a folder is called, "." too.
static std::string nameOfFolder(StringRef folder) {
  llvm::SmallString<128> path;
  if (llvm::sys::fs::real_path(folder, path))
    path = folder;
  std::string name = llvm::sys::path::filename(path).str();
  return llvm::json::isUTF8(name) ? name : llvm::json::fixUTF8(name);
}

static Error readWeights(StringRef folder, const FolderConfig &config,
                         DecoderModel &model) {
  Expected<SafetensorsSet> files = openTensors(folder);
  if (!files)
    return files.takeError();
  for (const SafetensorsFile::Ptr &file : files->files())
    model.files.push_back(file->name().str());
  FolderTensors tensors(*files, model.config.architecture);
  if (model.config.tiedEmbeddings)
    if (Error error = tensors.leaveOutCopy(
            (Twine(config.names.output) + ".weight").str(),
            (Twine(config.names.embedding) + ".weight").str()))
      return error;
  return addDecoderWeights(model, tensors, config.names, config.conventions);
}

Expected<DecoderModel> kvrm::openFolder(StringRef folder, int64_t capacity) {
  std::string path = inFolder(folder, "config.json");
  Expected<llvm::json::Object> root = readJsonObject(path);
  if (!root)
    return root.takeError();
  Expected<FolderConfig> config =
      readFolderConfig(JsonFields(*root, path), capacity);
  if (!config)
    return config.takeError();
  DecoderModel model;
  model.config = config->decoder;
  model.config.name = nameOfFolder(folder);
  listFiles(folder, model);
  if (Error error = firstOf({
          [&] { return readGenerationConfig(folder, model.config); },
          [&] { return readWeights(folder, *config, model); },
          [&] { return readFolderTokenizer(folder, model); },
          [&] { return model.verify(path); },
      }))
    return error;
  return model;
}

Error kvrm::addFolderTokenizer(StringRef folder, DecoderModel &model) {
  if (std::string path = inFolder(folder, "config.json");
      llvm::sys::fs::exists(path)) {
    Expected<llvm::json::Object> root = readJsonObject(path);
    if (!root)
      return root.takeError();
    if (Error error = readTokenMarks(JsonFields(*root, path), model.config))
      return error;
  }
  model.tokenizerNote.clear();
  if (Error error = firstOf({
          [&] { return readGenerationConfig(folder, model.config); },
          [&] { return readFolderTokenizer(folder, model); },
      }))
    return error;
  if (!model.tokenizer)
    return fileError(folder, model.tokenizerNote);
  listFiles(folder, model);
  return Error::success();
}

Expected<DecoderModel> kvrm::openModel(StringRef path, int64_t capacity) {
  return llvm::sys::fs::is_directory(path) ? openFolder(path, capacity)
                                           : openGGUF(path, capacity);
}
