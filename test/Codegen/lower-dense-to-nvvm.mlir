// RUN: kvrm-opt %s --kvrm-lower-kernels-to-nvvm --kvrm-lower-dense-to-nvvm | FileCheck %s
// RUN: kvrm-opt %s --kvrm-lower-kernels-to-nvvm=arch=sm_80 --kvrm-lower-dense-to-nvvm=arch=sm_80 | FileCheck %s --check-prefix=SM80
// RUN: not kvrm-opt %s --kvrm-lower-kernels-to-nvvm --kvrm-lower-dense-to-nvvm=arch=sm_75 2>&1 | FileCheck %s --check-prefix=ARCH

// ARCH: error: arch: 'sm_75' is not sm_80 or sm_90

!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 128, page = 16, element = f16, layout = swizzled>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>
#by_row = affine_map<(d0, d1) -> (d0)>
#both = affine_map<(d0, d1) -> (d0, d1)>

kvrm.kernel @append heads 2 io f16 tile <q = 1, kv = 16> transport <native> on !session at !desc {
  kvrm.append_rows
  kvrm.return
}

// Every op becomes a dispatch of a kernel, its buffers in the kernel's order.

// CHECK-LABEL: func.func @step(
// CHECK-SAME: %[[SESSION:[^:]+]]: !session
// CHECK-SAME: %[[X:[^:]+]]: memref<2x576xf16>, %[[W:[^:]+]]: memref<960x576xf16>, %[[ROW:[^:]+]]: memref<960xf32>, %[[Y:[^:]+]]: memref<2x960xf32>
// CHECK: kvrm.device_dispatch @kvrm_kernels::@[[LINEAR:linear_[0-9]+]] grid [1, 1, 1] per_processor ins(%[[X]], %[[W]], %[[ROW]] : {{.*}}) outs(%[[Y]] : memref<2x960xf32>)
// Equal ops have one kernel.
// CHECK: kvrm.device_dispatch @kvrm_kernels::@[[LINEAR]] grid
// CHECK: kvrm.device_dispatch @kvrm_kernels::@[[NORM:norm_[0-9]+]] grid [2, 1, 1] ins
// A sum of z and a fill of y do not wait for one another: one launch, a block
// and fifteen. A fill of z waits for the sum.
// CHECK: kvrm.device_dispatch @kvrm_kernels::@[[SUM:loops_[0-9]+]] grid [16, 1, 1] ins(%[[Z:[^ ]+]] : memref<2x960xf32>) outs(%{{[^ ]+}}, %[[Y]] : memref<2xf32>, memref<2x960xf32>)
// Fills of other values are other kernels.
// CHECK: kvrm.device_dispatch @kvrm_kernels::@[[FILL:loops_[0-9]+]] grid [15, 1, 1] outs(%[[Z]] : memref<2x960xf32>)
// CHECK: kvrm.device_dispatch @kvrm_kernels::@[[NORM]] grid
// CHECK: kvrm.device_dispatch @kvrm_kernels::@[[OTHER:loops_[0-9]+]] grid [15, 1, 1] outs(%[[Y]] : memref<2x960xf32>)
// Elements of 4 bytes are not for matrix units.
// CHECK: kvrm.device_dispatch @kvrm_kernels::@[[PLAIN:linear_[0-9]+]] grid [1, 1, 1] ins
// CHECK-NEXT: return
func.func @step(%session: !session, %x: memref<2x576xf16>, %w: memref<960x576xf16>, %row: memref<960xf32>, %y: memref<2x960xf32>, %z: memref<2x960xf32>, %norm: memref<2x960xf16>, %sums: memref<2xf32>, %x32: memref<2x40xf32>, %w32: memref<30x40xf32>, %y32: memref<2x15xf32>) attributes {kvrm.step} {
  %desc = kvrm.commit %session : !session -> !desc
  kvrm.linear ins(%x, %w : memref<2x576xf16>, memref<960x576xf16>) extras(%row : memref<960xf32>) outs(%y : memref<2x960xf32>) {
  ^bb0(%sum: f32, %bias: f32):
    %v = arith.addf %sum, %bias : f32
    kvrm.yield %v : f32
  }
  kvrm.linear ins(%x, %w : memref<2x576xf16>, memref<960x576xf16>) extras(%row : memref<960xf32>) outs(%z : memref<2x960xf32>) {
  ^bb0(%sum: f32, %bias: f32):
    %v = arith.addf %sum, %bias : f32
    kvrm.yield %v : f32
  }
  kvrm.rms_norm ins(%y, %row : memref<2x960xf32>, memref<960xf32>) outs(%norm : memref<2x960xf16>) epsilon 1.0e-5
  linalg.generic {indexing_maps = [#both, #by_row], iterator_types = ["parallel", "reduction"]} ins(%z : memref<2x960xf32>) outs(%sums : memref<2xf32>) {
  ^bb0(%in: f32, %acc: f32):
    %power = math.exp %in : f32
    %v = arith.addf %acc, %power : f32
    linalg.yield %v : f32
  }
  %zero = arith.constant 0.0 : f32
  %one = arith.constant 1.0 : f32
  linalg.fill ins(%zero : f32) outs(%y : memref<2x960xf32>)
  linalg.fill ins(%one : f32) outs(%z : memref<2x960xf32>)
  kvrm.rms_norm ins(%z, %row : memref<2x960xf32>, memref<960xf32>) outs(%norm : memref<2x960xf16>) epsilon 1.0e-5
  linalg.fill ins(%zero : f32) outs(%y : memref<2x960xf32>)
  kvrm.linear ins(%x32, %w32 : memref<2x40xf32>, memref<30x40xf32>) outs(%y32 : memref<2x15xf32>) parts 2 {
  ^bb0(%first: f32, %second: f32):
    %v = arith.mulf %first, %second : f32
    kvrm.yield %v : f32
  }
  return
}

// Weights are on their way before the wait; products take them from the ring.

// CHECK: llvm.func @[[LINEAR]](
// CHECK-SAME: kvrm.device_kernel = #kvrm.device_kernel<role = dense, threads = 288, shared_bytes =
// CHECK: nvvm.mbarrier.init
// CHECK: nvvm.griddepcontrol launch_dependents
// CHECK: nvvm.inline_ptx "cp.async.bulk.shared::cluster
// CHECK: nvvm.griddepcontrol wait
// CHECK: nvvm.mma.sync
// CHECK: mbarrier.arrive.shared.b64
// CHECK: nvvm.barrier id =
// CHECK: arith.addf
// CHECK: llvm.store
// SM80: llvm.func @linear_0(
// SM80-SAME: threads = 256,
// SM80-NOT: nvvm.griddepcontrol
// SM80-NOT: cp.async.bulk
// SM80: nvvm.mma.sync

// CHECK: llvm.func @[[NORM]](
// CHECK: nvvm.griddepcontrol wait
// CHECK: nvvm.shfl.sync
// CHECK: math.sqrt

// The one exponential is a power of two.
// CHECK: llvm.func @[[SUM]](
// CHECK: nvvm.griddepcontrol wait
// CHECK: scf.for
// CHECK: ex2.approx
