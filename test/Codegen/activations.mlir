// RUN: kvrm-opt %s --kvrm-page-cache="layout=swizzled" --kvrm-select-schedule --kvrm-generate-kernels | FileCheck %s
// RUN: kvrm-opt %s --kvrm-to-nvvm | FileCheck %s --check-prefix=NVVM
// RUN: not kvrm-opt %s --kvrm-page-cache --kvrm-select-schedule --kvrm-generate-kernels --kvrm-lower-kernels-to-host 2>&1 | FileCheck %s --check-prefix=HOST
// RUN: not kvrm-opt %s --kvrm-static-baseline 2>&1 | FileCheck %s --check-prefix=STATIC
// RUN: not kvrm-opt %kvrm_src/examples/decoder.mlir --kvrm-to-nvvm 2>&1 | FileCheck %s --check-prefix=F32

// Activations are of one element from the graph to the kernels, which say what
// they read and write. A target that does not is an error.

// CHECK: kvrm.kernel @append_{{.*}} heads 2 io bf16
// CHECK: kvrm.kernel @attend_{{.*}} heads 4 io bf16
// CHECK: load_query %{{.*}} : <2x64xbf16>
// CHECK: score {{.*}} : <2x64xbf16>, <64x64xbf16> -> <2x64xf32>
// CHECK: kvrm.launch @append_{{.*}} ins(%{{.*}}, %{{.*}} : tensor<2x1x2x64xbf16>, tensor<2x1x2x64xbf16>)
// CHECK: kvrm.launch @attend_{{.*}} ins(%{{.*}} : tensor<2x1x4x64xbf16>) outs(%{{.*}} : tensor<2x1x4x64xbf16>)

// NVVM: gpu.module @kvrm_kernels
// NVVM: nvvm.mma.sync {{.*}}bf16

// HOST: error: 'kvrm.kernel' op for the host needs io f32, got 'bf16'
// STATIC: error: 'kvrm.cached_attention' op for the static baseline needs activations of f32, got 'bf16'
// F32: error: 'kvrm.kernel' op has io 'f32' over a pool of 'f16'; this target takes activations of the pool's element

func.func @step(%q: tensor<2x1x4x64xbf16>, %k: tensor<2x1x2x64xbf16>, %p: tensor<2xi32>,
                %kc: tensor<1x2x2x256x64xbf16>, %vc: tensor<1x2x2x256x64xbf16>)
    -> (tensor<2x1x4x64xbf16>, tensor<1x2x2x256x64xbf16>, tensor<1x2x2x256x64xbf16>) attributes {kvrm.step} {
  %o, %kc1, %vc1 = kvrm.cached_attention %q, %k, %k, %kc, %vc at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<2x1x4x64xbf16>, tensor<2x1x2x64xbf16>, tensor<1x2x2x256x64xbf16>, tensor<2xi32>
  return %o, %kc1, %vc1 : tensor<2x1x4x64xbf16>, tensor<1x2x2x256x64xbf16>, tensor<1x2x2x256x64xbf16>
}
