// RUN: kvrm-opt %s --convert-kvrm-to-runtime | FileCheck %s

!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = f16, layout = transposed_keys>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>

// One argument, the address of kvrm_step_args; everything else is a call
// through the table of functions that it holds. Buffers whose lives do not
// overlap share memory: %a and %b here, 1024 bytes each, and %c is between them.
// A life begins where a buffer is first accessed.

// CHECK-LABEL: func.func @kvrm_step(
// CHECK-SAME: %[[ARGS:[a-z0-9]+]]: !llvm.ptr)
// CHECK-SAME: kvrm.arena_bytes = 2048 : i64
// CHECK: %[[API:.*]] = llvm.load %[[ARGS]] : !llvm.ptr -> !llvm.ptr
// CHECK: %[[COMMIT:.*]] = llvm.load %[[API]] : !llvm.ptr -> !llvm.ptr
// CHECK: llvm.call %[[COMMIT]](%{{.*}}) : !llvm.ptr, (!llvm.ptr) -> ()
// CHECK-NOT: {{kvrm\.(commit|stage|launch|dispatch)}}
// CHECK: return
func.func private @append(%args: !llvm.ptr) {
  return
}
func.func @step(%s: !session {kvrm.argument = #kvrm.argument<session>}) attributes {kvrm.step} {
  %d = kvrm.commit %s : !session -> !desc
  %g = kvrm.stage %s, %d {transport = #kvrm.transport<native>} : !session, !desc
  %a = memref.alloc() {alignment = 64 : i64} : memref<2x1x2x64xf32>
  %b = memref.alloc() {alignment = 64 : i64} : memref<2x1x2x64xf32>
  %c = memref.alloc() {alignment = 64 : i64} : memref<2x1x2x64xf32>
  kvrm.launch @append(%s, %d) ins(%a, %c : memref<2x1x2x64xf32>, memref<2x1x2x64xf32>) {layer = 0 : i64} : !session, !desc
  kvrm.launch @append(%s, %d) ins(%c, %b : memref<2x1x2x64xf32>, memref<2x1x2x64xf32>) {layer = 1 : i64} : !session, !desc
  return
}

!prompt = !kvrm.descriptor<rows = 1, queries = 8, pages = 4>

// Of two batches each has its number in calls, its tokens and its descriptor:
// members of kvrm_step_args that have one for each.

// CHECK-LABEL: func.func @kvrm_mixed(
// CHECK-SAME: %[[ARGS:[a-z0-9]+]]: !llvm.ptr)
// CHECK: llvm.getelementptr %[[ARGS]][%c32_i64]
// CHECK: llvm.getelementptr %[[ARGS]][%c40_i64]
// CHECK: llvm.getelementptr %[[ARGS]][%c48_i64]
// CHECK: llvm.getelementptr %[[ARGS]][%c56_i64]
// CHECK: llvm.call %{{.*}}(%{{.*}}, %[[B0:.*]], %{{.*}}) : !llvm.ptr, (!llvm.ptr, i32, i32) -> ()
// CHECK: llvm.call %{{.*}}(%{{.*}}, %[[B1:.*]], %{{.*}}) : !llvm.ptr, (!llvm.ptr, i32, i32) -> ()
// CHECK: llvm.call %{{.*}}(%{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}) : !llvm.ptr, (!llvm.ptr, i32, i32, !llvm.ptr, !llvm.ptr, !llvm.ptr) -> ()
func.func @mixed(%t: memref<2x1xi32> {kvrm.argument = #kvrm.argument<tokens>},
                 %u: memref<1x8xi32> {kvrm.argument = #kvrm.argument<tokens>},
                 %s: !session {kvrm.argument = #kvrm.argument<session>}) attributes {kvrm.step} {
  %d:2 = kvrm.commit %s : !session -> !desc, !prompt
  %g = kvrm.stage %s, %d#0 {transport = #kvrm.transport<native>} : !session, !desc
  %h = kvrm.stage %s, %d#1 {transport = #kvrm.transport<native>} : !session, !prompt
  %a = memref.alloc() {alignment = 64 : i64} : memref<1x8x2x64xf32>
  kvrm.launch @append(%s, %d#1) ins(%a, %a : memref<1x8x2x64xf32>, memref<1x8x2x64xf32>) {layer = 0 : i64} : !session, !prompt
  return
}
