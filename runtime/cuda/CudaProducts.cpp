//===- CudaProducts.cpp - Products by a library ---------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The library is column-major, where a row-major matrix is its transpose. So it
// computes out^T = weight * in^T, [N][M]: in^T is what lies in memory, and of
// the weight the transpose does.
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/cuda/CudaProducts.h"

#include "LtApi.h"

#include <algorithm>
#include <array>
#include <bit>

using namespace kvrm;

/// Status of a call: KVRM_LT(library, cublasLtDestroy, (handle)).
#define KVRM_LT(library, name, arguments)                                      \
  (library).statusOf((library).api().name arguments, #name)

ProductShape ProductShape::of(const kvrm_program_command &command) {
  KVRM_CHECK(command.kind == KVRM_COMMAND_PRODUCT &&
                 command.grid_rule < KVRM_PRODUCT_TYPES,
             "a product that is verified");
  return {.rows = command.grid[0],
          .columns = command.grid[1],
          .depth = command.grid[2],
          .type = static_cast<kvrm_product_type>(command.grid_rule),
          .hasAddend = command.args == 4};
}

/// "512 x 960 x 576".
static std::string textOf(const ProductShape &shape) {
  return std::to_string(shape.rows) + " x " + std::to_string(shape.columns) +
         " x " + std::to_string(shape.depth);
}

static cuda::LtType elementOf(kvrm_product_type type) {
  return kvrm_product_element(type) == KVRM_F16 ? cuda::ltF16 : cuda::ltBF16;
}

static cuda::LtType sumOf(kvrm_product_type type) {
  return kvrm_product_is_f32(type) ? cuda::ltF32 : elementOf(type);
}

//===----------------------------------------------------------------------===//
// What a product is prepared with
//===----------------------------------------------------------------------===//

namespace {

/// Owns an object of the library that `destroy` gives back.
template <typename T, cuda::LtResult (*cuda::LtApi::*destroy)(T *)>
class LtObject {
public:
  explicit LtObject(const ProductLibrary &library) : library(library) {}
  ~LtObject() {
    if (object)
      (library.api().*destroy)(object);
  }
  LtObject(const LtObject &) = delete;
  LtObject &operator=(const LtObject &) = delete;

  T *get() const { return object; }
  /// For the call that makes it.
  T **put() { return &object; }

private:
  const ProductLibrary &library;
  T *object = nullptr;
};

using MatmulDesc =
    LtObject<cuda::LtMatmulDesc, &cuda::LtApi::cublasLtMatmulDescDestroy>;
using MatrixLayout =
    LtObject<cuda::LtMatrixLayout, &cuda::LtApi::cublasLtMatrixLayoutDestroy>;
using Preference =
    LtObject<cuda::LtPreference, &cuda::LtApi::cublasLtMatmulPreferenceDestroy>;

} // namespace

struct CudaProducts::Product {
  Product(const ProductShape &shape, const ProductLibrary &library)
      : shape(shape), desc(library), weight(library), in(library),
        out(library) {}

  /// Says what matrices are.
  Status describe(const ProductLibrary &library);

  ProductShape shape;
  MatmulDesc desc;
  MatrixLayout weight, in, out;        ///< the addend is as the output
  std::vector<cuda::LtAlgorithm> ways; ///< as the library orders them
  cuda::LtAlgorithm algorithm{};       ///< the one in use
};

Status CudaProducts::Product::describe(const ProductLibrary &library) {
  KVRM_TRY(KVRM_LT(library, cublasLtMatmulDescCreate,
                   (desc.put(), cuda::ltComputeF32, cuda::ltF32)));
  const cuda::LtOperation transposed = cuda::ltTransposed;
  KVRM_TRY(KVRM_LT(
      library, cublasLtMatmulDescSetAttribute,
      (desc.get(), cuda::ltTransposeA, &transposed, sizeof(transposed))));
  struct Side {
    MatrixLayout *layout;
    cuda::LtType type;
    int64_t rows, columns; ///< as the library counts
  };
  cuda::LtType element = elementOf(shape.type);
  for (const Side &side :
       {Side{&weight, element, shape.depth, shape.columns},
        Side{&in, element, shape.depth, shape.rows},
        Side{&out, sumOf(shape.type), shape.columns, shape.rows}})
    KVRM_TRY(KVRM_LT(library, cublasLtMatrixLayoutCreate,
                     (side.layout->put(), side.type,
                      static_cast<uint64_t>(side.rows),
                      static_cast<uint64_t>(side.columns), side.rows)));
  return Status::ok();
}

//===----------------------------------------------------------------------===//
// CudaProducts
//===----------------------------------------------------------------------===//

Expected<std::unique_ptr<CudaProducts>>
CudaProducts::create(std::shared_ptr<const ProductLibrary> library,
                     std::shared_ptr<const CudaDevice> device) {
  KVRM_CHECK(library && device, "products have a library and a device");
  std::unique_ptr<CudaProducts> created(new CudaProducts());
  created->library = std::move(library);
  created->device = std::move(device);
  Expected<DeviceBuffer> workspace =
      DeviceBuffer::create(created->device, workspaceBytes, "products");
  KVRM_TRY(workspace.status());
  created->workspace = workspace.take();
  for (CudaEvent *event : {&created->before, &created->after}) {
    Expected<CudaEvent> made =
        CudaEvent::create(created->device, /*isTimed=*/true);
    KVRM_TRY(made.status());
    *event = made.take();
  }
  KVRM_TRY(created->device->use());
  KVRM_TRY(KVRM_LT(*created->library, cublasLtCreate, (&created->handle)));
  return created;
}

CudaProducts::~CudaProducts() {
  products.clear();
  if (!handle)
    return;
  (void)device->use().isOk();
  library->api().cublasLtDestroy(handle);
}

/// Ways that are timed. What is fastest was always among the first few, though
/// not always the first.
static constexpr int32_t maxWays = 8;

Status CudaProducts::findWays(Product &product) const {
  Preference preference(*library);
  KVRM_TRY(
      KVRM_LT(*library, cublasLtMatmulPreferenceCreate, (preference.put())));
  const uint64_t bytes = workspaceBytes;
  KVRM_TRY(KVRM_LT(
      *library, cublasLtMatmulPreferenceSetAttribute,
      (preference.get(), cuda::ltMaxWorkspaceBytes, &bytes, sizeof(bytes))));
  const uint32_t reductions = cuda::ltReduceInF32;
  KVRM_TRY(KVRM_LT(
      *library, cublasLtMatmulPreferenceSetAttribute,
      (preference.get(), cuda::ltReductions, &reductions, sizeof(reductions))));
  const uint32_t alignment = KVRM_PRODUCT_ALIGNMENT;
  for (cuda::LtPreferenceAttribute side :
       {cuda::ltMinAlignmentA, cuda::ltMinAlignmentB, cuda::ltMinAlignmentC,
        cuda::ltMinAlignmentD})
    KVRM_TRY(KVRM_LT(*library, cublasLtMatmulPreferenceSetAttribute,
                     (preference.get(), side, &alignment, sizeof(alignment))));
  std::array<cuda::LtHeuristic, maxWays> best{};
  int32_t found = 0;
  cuda::LtResult result = library->api().cublasLtMatmulAlgoGetHeuristic(
      handle, product.desc.get(), product.weight.get(), product.in.get(),
      product.out.get(), product.out.get(), preference.get(), maxWays,
      best.data(), &found);
  if (result != cuda::ltNotSupported)
    KVRM_TRY(library->statusOf(result, "cublasLtMatmulAlgoGetHeuristic"));
  for (int32_t i = 0; i < std::clamp(found, 0, maxWays); ++i)
    if (best[static_cast<size_t>(i)].result == cuda::ltSuccess)
      product.ways.push_back(best[static_cast<size_t>(i)].algorithm);
  if (product.ways.empty())
    return makeError(StatusCode::Incompatible, "products: ", library->name(),
                     " has no way for ", textOf(product.shape),
                     "; KVRM_CUBLASLT=none does without it");
  product.algorithm = product.ways.front();
  return Status::ok();
}

Expected<size_t> CudaProducts::prepare(const ProductShape &shape) {
  for (size_t i = 0; i < products.size(); ++i)
    if (products[i]->shape == shape)
      return i;
  KVRM_TRY(device->use());
  auto product = std::make_unique<Product>(shape, *library);
  KVRM_TRY(product->describe(*library));
  KVRM_TRY(findWays(*product));
  products.push_back(std::move(product));
  return products.size() - 1;
}

/// Microseconds of the way that is in use, the least of a few runs. The first
/// run loads its code.
Expected<double> CudaProducts::time(const CudaStream &stream,
                                    const Product &product,
                                    const ProductAddresses &at) const {
  double least = 0;
  for (int i = 0; i < 4; ++i) {
    KVRM_TRY(before.record(stream));
    KVRM_TRY(start(stream, product, at));
    KVRM_TRY(after.record(stream));
    KVRM_TRY(after.synchronize());
    Expected<double> spent = after.microsecondsSince(before);
    KVRM_TRY(spent.status());
    least = i <= 1 ? *spent : std::min(least, *spent);
  }
  return least;
}

Status CudaProducts::tune(const CudaStream &stream, size_t product,
                          const ProductAddresses &at) {
  KVRM_CHECK(product < products.size(), "a product is prepared");
  Product &own = *products[product];
  cuda::LtAlgorithm best = own.ways.front();
  double least = 0;
  for (size_t i = 0; i < own.ways.size(); ++i) {
    own.algorithm = own.ways[i];
    Expected<double> spent = time(stream, own, at);
    if (!spent)
      own.algorithm = best;
    KVRM_TRY(spent.status());
    // Those after the first have to be clearly better than it.
    double cost = i == 0 ? 0.9 * *spent : *spent;
    if (i == 0 || cost < least) {
      least = cost;
      best = own.ways[i];
    }
  }
  own.algorithm = best;
  return Status::ok();
}

Status CudaProducts::run(const CudaStream &stream, size_t product,
                         const ProductAddresses &at) const {
  KVRM_CHECK(product < products.size(), "a product is prepared");
  return start(stream, *products[product], at);
}

Status CudaProducts::start(const CudaStream &stream, const Product &own,
                           const ProductAddresses &at) const {
  KVRM_TRY(device->use());
  // The library reads them while it is called.
  static constexpr float one = 1;
  const float beta = own.shape.hasAddend ? 1 : 0;
  auto pointer = [](uint64_t address) {
    return std::bit_cast<void *>(address);
  };
  void *addend = pointer(own.shape.hasAddend ? at.addend : at.out);
  return KVRM_LT(*library, cublasLtMatmul,
                 (handle, own.desc.get(), &one, pointer(at.weight),
                  own.weight.get(), pointer(at.in), own.in.get(), &beta, addend,
                  own.out.get(), pointer(at.out), own.out.get(), &own.algorithm,
                  pointer(workspace.address()),
                  static_cast<size_t>(workspaceBytes), stream.handle()));
}
