// RUN: kvrm-opt %s --kvrm-lower-kernels-to-nvvm --kvrm-lower-dense-to-nvvm | FileCheck %s
// RUN: kvrm-opt %s --kvrm-lower-kernels-to-nvvm=arch=sm_80 --kvrm-lower-dense-to-nvvm=arch=sm_80 | FileCheck %s --check-prefix=SM80

// Keys and values of a projection go straight to their pages where an append
// alone uses them.

!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = f16, layout = swizzled>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>

kvrm.kernel @append heads 2 io f16 tile <q = 1, kv = 16> transport <native> on !session at !desc {
  kvrm.append_rows
  kvrm.return
}

// CHECK-LABEL: func.func @step(
// The norm has no product ahead of it that stores its rows: it is on its own.
// CHECK: kvrm.device_dispatch @kvrm_kernels::@[[$NORM:norm_[0-9]+]] grid [2, 1, 1] ins(%{{[^ ]+}}, %{{[^ ]+}} : memref<2x64xf32>, memref<64xf32>) outs(%[[X:[^ ]+]] : memref<2x64xf16>)
// CHECK: kvrm.device_dispatch @kvrm_kernels::@[[$QKV:qkv_[0-9]+]] grid [1, 1, 1] per_processor ins(%[[X]], %{{[^ ]+}}, %{{[^ ]+}}, %{{[^ ]+}} : memref<2x64xf16>, memref<512x64xf16>, memref<2x32xf32>, memref<2x32xf32>) outs(%{{[^ ]+}} : memref<2x256xf16>) appends layer 0
// CHECK-NOT: kvrm.launch
// The same kernel, of another layer.
// CHECK: kvrm.device_dispatch @kvrm_kernels::@[[$QKV]] {{.*}} appends layer 1
// CHECK-NOT: kvrm.launch
// The key is read again: it has to be in a buffer.
// CHECK: kvrm.device_dispatch @kvrm_kernels::@[[PLAIN:qkv_[0-9]+]] {{.*}} outs(%{{[^ ]+}}, %[[K:[^ ]+]], %{{[^ ]+}} : memref<2x256xf16>, memref<2x128xf16>, memref<2x128xf16>){{$}}
// CHECK: kvrm.launch @append
// CHECK: kvrm.device_dispatch {{.*}} ins(%[[K]] :
// CHECK: return
func.func @step(%session: !session, %x: memref<2x64xf32>, %w: memref<512x64xf16>, %g: memref<64xf32>, %cos: memref<2x32xf32>, %sin: memref<2x32xf32>, %q: memref<2x256xf16>, %out: memref<2x128xf16>) attributes {kvrm.step} {
  %desc = kvrm.commit %session : !session -> !desc
  %k = memref.alloc() : memref<2x128xf16>
  %v = memref.alloc() : memref<2x128xf16>
  kvrm.qkv_projection ins(%x, %w : memref<2x64xf32>, memref<512x64xf16>) norm(%g : memref<64xf32>) epsilon 1.0e-5
      rotation(%cos, %sin : memref<2x32xf32>, memref<2x32xf32>) outs(%q, %k, %v : memref<2x256xf16>, memref<2x128xf16>, memref<2x128xf16>)
  %k4 = memref.expand_shape %k [[0, 1], [2, 3]] output_shape [2, 1, 2, 64] : memref<2x128xf16> into memref<2x1x2x64xf16>
  %v4 = memref.expand_shape %v [[0, 1], [2, 3]] output_shape [2, 1, 2, 64] : memref<2x128xf16> into memref<2x1x2x64xf16>
  kvrm.launch @append(%session, %desc) ins(%k4, %v4 : memref<2x1x2x64xf16>, memref<2x1x2x64xf16>) {layer = 0 : i64} : !session, !desc
  %k1 = memref.alloc() : memref<2x128xf16>
  %v1 = memref.alloc() : memref<2x128xf16>
  kvrm.qkv_projection ins(%x, %w : memref<2x64xf32>, memref<512x64xf16>) norm(%g : memref<64xf32>) epsilon 1.0e-5
      rotation(%cos, %sin : memref<2x32xf32>, memref<2x32xf32>) outs(%q, %k1, %v1 : memref<2x256xf16>, memref<2x128xf16>, memref<2x128xf16>)
  %k14 = memref.expand_shape %k1 [[0, 1], [2, 3]] output_shape [2, 1, 2, 64] : memref<2x128xf16> into memref<2x1x2x64xf16>
  %v14 = memref.expand_shape %v1 [[0, 1], [2, 3]] output_shape [2, 1, 2, 64] : memref<2x128xf16> into memref<2x1x2x64xf16>
  kvrm.launch @append(%session, %desc) ins(%k14, %v14 : memref<2x1x2x64xf16>, memref<2x1x2x64xf16>) {layer = 1 : i64} : !session, !desc
  %k2 = memref.alloc() : memref<2x128xf16>
  %v2 = memref.alloc() : memref<2x128xf16>
  kvrm.qkv_projection ins(%x, %w : memref<2x64xf32>, memref<512x64xf16>) norm(%g : memref<64xf32>) epsilon 1.0e-5
      rotation(%cos, %sin : memref<2x32xf32>, memref<2x32xf32>) outs(%q, %k2, %v2 : memref<2x256xf16>, memref<2x128xf16>, memref<2x128xf16>)
  %k24 = memref.expand_shape %k2 [[0, 1], [2, 3]] output_shape [2, 1, 2, 64] : memref<2x128xf16> into memref<2x1x2x64xf16>
  %v24 = memref.expand_shape %v2 [[0, 1], [2, 3]] output_shape [2, 1, 2, 64] : memref<2x128xf16> into memref<2x1x2x64xf16>
  kvrm.launch @append(%session, %desc) ins(%k24, %v24 : memref<2x1x2x64xf16>, memref<2x1x2x64xf16>) {layer = 1 : i64} : !session, !desc
  linalg.copy ins(%k2 : memref<2x128xf16>) outs(%out : memref<2x128xf16>)
  return
}

// The descriptor is committed after the projection, which then cannot know where
// tokens go; and a key of which another view is appended.
// CHECK-LABEL: func.func @not_yet_committed(
// CHECK-NOT: appends layer
// CHECK: kvrm.device_dispatch {{.*}} outs(%{{[^ ]+}}, %{{[^ ]+}}, %{{[^ ]+}} : memref<2x256xf16>, memref<2x128xf16>, memref<2x128xf16>){{$}}
// CHECK: kvrm.launch @append
func.func @not_yet_committed(%session: !session, %x: memref<2x64xf32>, %w: memref<512x64xf16>, %g: memref<64xf32>, %cos: memref<2x32xf32>, %sin: memref<2x32xf32>, %q: memref<2x256xf16>) attributes {kvrm.step} {
  %k = memref.alloc() : memref<2x128xf16>
  %v = memref.alloc() : memref<2x128xf16>
  kvrm.qkv_projection ins(%x, %w : memref<2x64xf32>, memref<512x64xf16>) norm(%g : memref<64xf32>) epsilon 1.0e-5
      rotation(%cos, %sin : memref<2x32xf32>, memref<2x32xf32>) outs(%q, %k, %v : memref<2x256xf16>, memref<2x128xf16>, memref<2x128xf16>)
  %desc = kvrm.commit %session : !session -> !desc
  %k4 = memref.expand_shape %k [[0, 1], [2, 3]] output_shape [2, 1, 2, 64] : memref<2x128xf16> into memref<2x1x2x64xf16>
  %v4 = memref.expand_shape %v [[0, 1], [2, 3]] output_shape [2, 1, 2, 64] : memref<2x128xf16> into memref<2x1x2x64xf16>
  kvrm.launch @append(%session, %desc) ins(%k4, %v4 : memref<2x1x2x64xf16>, memref<2x1x2x64xf16>) {layer = 0 : i64} : !session, !desc
  return
}

// CHECK-LABEL: func.func @other_view(
// CHECK-NOT: appends layer
// CHECK: kvrm.launch @append
func.func @other_view(%session: !session, %x: memref<2x64xf32>, %w: memref<512x64xf16>, %g: memref<64xf32>, %cos: memref<2x32xf32>, %sin: memref<2x32xf32>, %q: memref<2x256xf16>) attributes {kvrm.step} {
  %desc = kvrm.commit %session : !session -> !desc
  %k = memref.alloc() : memref<384xf16>
  %v = memref.alloc() : memref<384xf16>
  %kw = memref.reinterpret_cast %k to offset: [0], sizes: [2, 128], strides: [256, 1] : memref<384xf16> to memref<2x128xf16, strided<[256, 1]>>
  %vw = memref.reinterpret_cast %v to offset: [0], sizes: [2, 128], strides: [256, 1] : memref<384xf16> to memref<2x128xf16, strided<[256, 1]>>
  kvrm.qkv_projection ins(%x, %w : memref<2x64xf32>, memref<512x64xf16>) norm(%g : memref<64xf32>) epsilon 1.0e-5
      rotation(%cos, %sin : memref<2x32xf32>, memref<2x32xf32>) outs(%q, %kw, %vw : memref<2x256xf16>, memref<2x128xf16, strided<[256, 1]>>, memref<2x128xf16, strided<[256, 1]>>)
  %kr = memref.reinterpret_cast %k to offset: [0], sizes: [2, 1, 2, 64], strides: [128, 128, 64, 1] : memref<384xf16> to memref<2x1x2x64xf16>
  %vr = memref.reinterpret_cast %v to offset: [0], sizes: [2, 1, 2, 64], strides: [128, 128, 64, 1] : memref<384xf16> to memref<2x1x2x64xf16>
  kvrm.launch @append(%session, %desc) ins(%kr, %vr : memref<2x1x2x64xf16>, memref<2x1x2x64xf16>) {layer = 0 : i64} : !session, !desc
  return
}

// A bias is added to the sums of a pair before it turns: of 256 + 2 * 128
// columns, those of a query's head are half a head apart.
// CHECK-LABEL: func.func @biased(
// CHECK: kvrm.device_dispatch @kvrm_kernels::@{{qkv_[0-9]+}} grid [1, 1, 1] per_processor ins({{.*}} : memref<2x64xf16>, memref<512x64xf16>, memref<512xf32>, memref<2x32xf32>, memref<2x32xf32>)
func.func @biased(%x: memref<2x64xf32>, %w: memref<512x64xf16>, %g: memref<64xf32>, %b: memref<512xf32>, %cos: memref<2x32xf32>, %sin: memref<2x32xf32>, %q: memref<2x256xf16>, %k: memref<2x128xf16>, %v: memref<2x128xf16>) attributes {kvrm.step} {
  kvrm.qkv_projection ins(%x, %w : memref<2x64xf32>, memref<512x64xf16>) norm(%g : memref<64xf32>) epsilon 1.0e-5
      bias(%b : memref<512xf32>) rotation(%cos, %sin : memref<2x32xf32>, memref<2x32xf32>) outs(%q, %k, %v : memref<2x256xf16>, memref<2x128xf16>, memref<2x128xf16>)
  return
}

// CHECK: llvm.func @[[$QKV]](
// CHECK-SAME: i64, %{{[^:]+}}: i64)
// Nobody else reads these weights.
// CHECK: createpolicy.fractional.L2::evict_first.b64
// CHECK: cp.async.bulk.shared::cluster{{.*}}.L2::cache_hint
// CHECK: nvvm.griddepcontrol wait
// CHECK: nvvm.mma.sync
// SM80: llvm.func @qkv_1(
// SM80-NOT: cp.async.bulk
// SM80: nvvm.mma.sync
