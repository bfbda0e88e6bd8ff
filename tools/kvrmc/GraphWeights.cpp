//===- GraphWeights.cpp - Values for the weights of a graph ---------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "GraphWeights.h"

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"
#include "kvrm/Frontend/FileError.h"
#include "kvrm/Frontend/TensorParts.h"

#include "mlir/Dialect/MLProgram/IR/MLProgram.h"
#include "mlir/IR/DialectResourceBlobManager.h"
#include "llvm/Support/FormatVariadic.h"

using namespace mlir;
using namespace mlir::kvrm;
using namespace kvrmc;
using ::kvrm::fileError;
using ::kvrm::SafetensorsSet;
using ::kvrm::SafetensorsTensor;
using ::kvrm::SafetensorsType;
using ::kvrm::StoredTensor;
using ::kvrm::TensorPart;

namespace {

class WeightBinder {
public:
  WeightBinder(ModuleOp module, const GraphArguments &arguments,
               const GraphOptions &options, ::kvrm::DecoderModel &model)
      : module(module), arguments(arguments), options(options), model(model) {}

  llvm::Error run();

private:
  llvm::Error openFiles();
  llvm::Error checkNames();
  llvm::Error takeConstants();
  llvm::Expected<StoredTensor> find(StringRef name);
  llvm::Error bind(ml_program::GlobalOp global);

  ModuleOp module;
  const GraphArguments &arguments;
  const GraphOptions &options;
  ::kvrm::DecoderModel &model;
  std::optional<SafetensorsSet> files;
  llvm::StringMap<StoredTensor> constants;
};

} // namespace

static std::optional<SafetensorsType> storedType(Type element) {
  if (element.isF32())
    return SafetensorsType::F32;
  if (element.isF16())
    return SafetensorsType::F16;
  if (element.isBF16())
    return SafetensorsType::BF16;
  return std::nullopt;
}

static std::string toText(ArrayRef<int64_t> shape) {
  return llvm::formatv("[{0:$[, ]}]",
                       llvm::make_range(shape.begin(), shape.end()))
      .str();
}

/// Names as a user reads them: the first few, and how many there are.
static std::string listNames(ArrayRef<std::string> names) {
  constexpr size_t most = 4;
  std::string text;
  for (const std::string &name : names.take_front(most))
    text += (text.empty() ? "'" : ", '") + name + "'";
  if (names.size() > most)
    text += " and " + std::to_string(names.size() - most) + " more";
  return text;
}

llvm::Error WeightBinder::openFiles() {
  if (options.weights.empty())
    return llvm::Error::success();
  llvm::Expected<SafetensorsSet> opened = SafetensorsSet::open(options.weights);
  if (!opened)
    return opened.takeError();
  files = std::move(*opened);
  for (const auto &file : files->files())
    model.files.push_back(file->name().str());
  return llvm::Error::success();
}

/// The tensors that parts of globals are of.
static SmallVector<std::string> namesOf(ModuleOp module) {
  SmallVector<std::string> names;
  for (auto global : module.getOps<ml_program::GlobalOp>()) {
    if (!isa_and_present<ml_program::ExternAttr>(global.getValueAttr()))
      continue;
    auto parts =
        global->getAttrOfType<ArrayAttr>(KVRMDialect::getPartsAttrName());
    if (!parts)
      names.push_back(global.getSymName().str());
    else
      for (auto part : parts.getAsRange<WeightPartAttr>())
        names.push_back(part.getTensor().str());
  }
  return names;
}

/// That the file has what the graph takes, and nothing else.
llvm::Error WeightBinder::checkNames() {
  std::vector<std::string> missing, superfluous;
  for (const std::string &name : namesOf(module))
    if (arguments.types.contains(name) && !files->tensor(name).tensor &&
        !llvm::is_contained(missing, name))
      missing.push_back(name);
  if (!missing.empty())
    return fileError(options.weights, "has no " + listNames(missing) +
                                          ", which the graph takes");
  for (const auto &file : files->files())
    for (const SafetensorsTensor &tensor : file->tensors())
      if (!arguments.types.contains(tensor.name) &&
          !arguments.unused.contains(tensor.name) && !tensor.isDerived())
        superfluous.push_back(tensor.name);
  if (!superfluous.empty())
    return fileError(options.weights, "has " + listNames(superfluous) +
                                          ", of which the graph has no "
                                          "argument");
  return llvm::Error::success();
}

/// The bytes of a table that the graph holds.
static std::optional<ArrayRef<char>> rawBytes(Attribute value) {
  if (auto dense = dyn_cast<DenseElementsAttr>(value))
    return dense.getRawData();
  if (auto resource = dyn_cast<DenseResourceElementsAttr>(value))
    if (AsmResourceBlob *blob = resource.getRawHandle().getBlob())
      return blob->getData();
  return std::nullopt;
}

llvm::Error WeightBinder::takeConstants() {
  for (auto global :
       llvm::make_early_inc_range(module.getOps<ml_program::GlobalOp>())) {
    Attribute value = global.getValueAttr();
    if (isa_and_present<ml_program::ExternAttr>(value))
      continue;
    auto type = cast<RankedTensorType>(global.getType());
    std::optional<SafetensorsType> element = storedType(type.getElementType());
    std::optional<ArrayRef<char>> bytes = rawBytes(value);
    int64_t expected =
        element ? type.getNumElements() * sizeOf(*element) : int64_t{0};
    if (!element || !bytes || static_cast<int64_t>(bytes->size()) != expected)
      return fileError(options.path,
                       "'" + global.getSymName() + "': its value is not there");
    auto copy =
        std::make_shared<std::vector<uint8_t>>(bytes->begin(), bytes->end());
    constants[global.getSymName()] = {
        *element, copy->data(), type.getNumElements(), copy,
        (options.path + ": " + global.getSymName()).str()};
    // Of most, matrices were made.
    if (SymbolTable::symbolKnownUseEmpty(global, module))
      global.erase();
    else
      global.setValueAttr(
          ml_program::ExternAttr::get(module.getContext(), type));
  }
  return llvm::Error::success();
}

llvm::Expected<StoredTensor> WeightBinder::find(StringRef name) {
  if (auto known = constants.find(name); known != constants.end())
    return known->second;
  SafetensorsSet::Found found = files->tensor(name);
  auto type = cast<RankedTensorType>(arguments.types.lookup(name));
  if (ArrayRef<int64_t>(found.tensor->shape) != type.getShape())
    return fileError(found.file->name(), "tensor '" + name + "': shape " +
                                             toText(found.tensor->shape) +
                                             ", the graph takes " +
                                             toText(type.getShape()));
  if (!isFloat(found.tensor->type))
    return fileError(found.file->name(), "tensor '" + name + "': dtype " +
                                             nameOf(found.tensor->type) +
                                             " is none of floating point");
  return StoredTensor{found.tensor->type, found.tensor->data,
                      found.tensor->elements(), found.file,
                      (found.file->name() + ": " + name).str()};
}

static llvm::SmallVector<TensorPart::Factor, 2>
zipFactors(ArrayRef<int64_t> sizes, ArrayRef<int64_t> strides) {
  llvm::SmallVector<TensorPart::Factor, 2> factors;
  for (auto [size, stride] : llvm::zip_equal(sizes, strides))
    factors.push_back({size, stride});
  return factors;
}

llvm::Error WeightBinder::bind(ml_program::GlobalOp global) {
  std::vector<TensorPart> parts;
  auto list = global->getAttrOfType<ArrayAttr>(KVRMDialect::getPartsAttrName());
  if (list) {
    for (auto attribute : list.getAsRange<WeightPartAttr>()) {
      llvm::Expected<StoredTensor> tensor = find(attribute.getTensor());
      if (!tensor)
        return tensor.takeError();
      parts.push_back(
          {std::move(*tensor), attribute.getOffset(),
           zipFactors(attribute.getRowSizes(), attribute.getRowStrides()),
           zipFactors(attribute.getColumnSizes(),
                      attribute.getColumnStrides())});
    }
  } else {
    llvm::Expected<StoredTensor> tensor = find(global.getSymName());
    if (!tensor)
      return tensor.takeError();
    auto type = cast<RankedTensorType>(global.getType());
    int64_t rows = type.getRank() < 2 ? 1 : type.getDimSize(0);
    int64_t columns = type.getNumElements() / rows;
    parts.push_back({std::move(*tensor), 0, {{rows, columns}}, {{columns, 1}}});
  }
  for (const TensorPart &part : parts)
    if (!part.isInside() || part.columnCount() != parts.front().columnCount())
      return fileError(options.path,
                       "'" + global.getSymName() + "': its parts do not fit");
  model.set(global.getSymName(), joinParts(std::move(parts)));
  return llvm::Error::success();
}

llvm::Error WeightBinder::run() {
  if (llvm::Error error = openFiles())
    return error;
  bool takesWeights = llvm::any_of(namesOf(module), [&](StringRef name) {
    return arguments.types.contains(name);
  });
  if (!files && options.needsWeights && takesWeights)
    return fileError(options.path,
                     "takes weights; name their file with --weights");
  if (files)
    if (llvm::Error error = checkNames())
      return error;
  if (llvm::Error error = takeConstants())
    return error;
  if (!files && !options.needsWeights)
    return llvm::Error::success();
  for (auto global : module.getOps<ml_program::GlobalOp>())
    if (llvm::Error error = bind(global))
      return error;
  return llvm::Error::success();
}

llvm::Error kvrmc::bindWeights(ModuleOp module, const GraphArguments &arguments,
                               const GraphOptions &options,
                               ::kvrm::DecoderModel &model) {
  return WeightBinder(module, arguments, options, model).run();
}
