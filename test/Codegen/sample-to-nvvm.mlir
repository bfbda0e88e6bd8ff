// The rule of abi/sampling.h: no sum of floats, no fused multiply-add.
//
// RUN: kvrm-opt %s --kvrm-lower-kernels-to-nvvm --kvrm-lower-dense-to-nvvm | FileCheck %s
// RUN: kvrm-opt %s --kvrm-lower-kernels-to-nvvm=arch=sm_80 --kvrm-lower-dense-to-nvvm=arch=sm_80 | FileCheck %s --check-prefix=SM80

!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 128, page = 16, element = f16, layout = swizzled>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>

kvrm.kernel @append heads 2 io f16 tile <q = 1, kv = 16> transport <native> on !session at !desc {
  kvrm.append_rows
  kvrm.return
}

func.func @decode(%session: !session, %logits: memref<2x204xf32>) attributes {kvrm.step} {
  kvrm.sample %logits : memref<2x204xf32>
  return
}

// CHECK: llvm.func @sample(%{{[^,]+}}: !llvm.ptr<1>, %{{[^,]+}}: !llvm.ptr<1>, %{{[^,]+}}: !llvm.ptr<1>, %{{[^,)]+}}: !llvm.ptr<1>)
// CHECK-SAME: kvrm.device_kernel = #kvrm.device_kernel<role = sample, threads = 1024, shared_bytes = 4096>
// CHECK: nvvm.griddepcontrol wait
// CHECK-NOT: llvm.intr.fma
// A row is read in fours.
// CHECK: vector<4xf32>
// CHECK: arith.maxui
// CHECK: math.floor

// SM80: llvm.func @sample(
// SM80-NOT: nvvm.griddepcontrol
