//===- DenseLibraries.cpp - What libraries take for the dense part ------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

//
// The matrix products of one step of SmolLM2-135M (30 layers of 960, 576, 3072
// rows by 576 and 576 by 1536, then 49152 by 576) with OpenBLAS in f32 and
// oneDNN in f32 and bf16, for 1, 8 and 64 rows of activations. Every layer has
// weights of its own, so that they come from memory as in a decoder. What
// kvrm's generated code takes for the same products, all else of a step
// included, is `kvrm-run bench` at a short context. docs/dense.md has the
// comparison.
//
//===----------------------------------------------------------------------===//

#include <benchmark/benchmark.h>
#include <cblas.h>
#include <dnnl.hpp>

#include <unordered_map>
#include <vector>

namespace {

struct Product {
  int64_t n, k;
};

std::vector<Product> productsOfOneStep() {
  std::vector<Product> products;
  for (int layer = 0; layer < 30; ++layer)
    for (Product product : {Product{960, 576}, Product{576, 576},
                            Product{3072, 576}, Product{576, 1536}})
      products.push_back(product);
  products.push_back({49152, 576});
  return products;
}

void setRates(benchmark::State &state, int64_t elementBytes) {
  int64_t elements = 0;
  for (Product product : productsOfOneStep())
    elements += product.n * product.k;
  state.SetBytesProcessed(state.iterations() * elements * elementBytes);
}

void openBLAS(benchmark::State &state) {
  auto m = static_cast<int>(state.range(0));
  std::vector<Product> products = productsOfOneStep();
  std::vector<std::vector<float>> weights;
  for (Product product : products)
    weights.emplace_back(static_cast<size_t>(product.n * product.k), 0.01f);
  std::vector<float> x(static_cast<size_t>(m) * 1536, 1.0f);
  std::vector<float> y(static_cast<size_t>(m) * 49152);
  for (auto _ : state) {
    for (size_t i = 0; i < products.size(); ++i) {
      auto n = static_cast<int>(products[i].n);
      auto k = static_cast<int>(products[i].k);
      if (m == 1)
        cblas_sgemv(CblasRowMajor, CblasNoTrans, n, k, 1.0f, weights[i].data(),
                    k, x.data(), 1, 0.0f, y.data(), 1);
      else
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1.0f,
                    x.data(), k, weights[i].data(), k, 0.0f, y.data(), n);
    }
    benchmark::DoNotOptimize(y.data());
  }
  setRates(state, 4);
}

void oneDNN(benchmark::State &state, dnnl::memory::data_type type) {
  using dnnl::memory;
  int64_t m = state.range(0);
  dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  std::vector<dnnl::matmul> primitives;
  std::vector<std::unordered_map<int, memory>> arguments;
  for (Product product : productsOfOneStep()) {
    memory::desc source({m, product.k}, type, memory::format_tag::ab);
    // Weights in the layout that oneDNN likes best, as a compiler would pack.
    memory::desc weight({product.k, product.n}, type, memory::format_tag::any);
    memory::desc target({m, product.n}, memory::data_type::f32,
                        memory::format_tag::ab);
    dnnl::matmul::primitive_desc description(
        dnnl::matmul::desc(source, weight, target), engine);
    primitives.emplace_back(description);
    memory weightMemory(description.weights_desc(), engine);
    memory plain({{product.k, product.n}, type, memory::format_tag::ba},
                 engine);
    dnnl::reorder(plain, weightMemory).execute(stream, plain, weightMemory);
    arguments.push_back({{DNNL_ARG_SRC, memory(source, engine)},
                         {DNNL_ARG_WEIGHTS, weightMemory},
                         {DNNL_ARG_DST, memory(target, engine)}});
  }
  for (auto _ : state) {
    for (size_t i = 0; i < primitives.size(); ++i)
      primitives[i].execute(stream, arguments[i]);
    stream.wait();
  }
  setRates(state, type == memory::data_type::f32 ? 4 : 2);
}

void oneDNNf32(benchmark::State &state) {
  oneDNN(state, dnnl::memory::data_type::f32);
}
void oneDNNbf16(benchmark::State &state) {
  oneDNN(state, dnnl::memory::data_type::bf16);
}

#define KVRM_ROWS ->Arg(1)->Arg(8)->Arg(64)->Unit(benchmark::kMillisecond)
BENCHMARK(openBLAS) KVRM_ROWS->UseRealTime();
BENCHMARK(oneDNNf32) KVRM_ROWS->UseRealTime();
BENCHMARK(oneDNNbf16) KVRM_ROWS->UseRealTime();

} // namespace

BENCHMARK_MAIN();
