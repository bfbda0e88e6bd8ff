// RUN: kvrm-opt %s --kvrm-merge-transport -split-input-file -verify-diagnostics | FileCheck %s

// One stage, right behind the commit, serves all layers, those in nested
// regions too.

// CHECK-LABEL: func.func @three_layers
// CHECK: %[[D:.*]] = kvrm.commit %[[S:.*]] : !session
// CHECK-NEXT: %[[G:.*]] = kvrm.stage %[[S]], %[[D]] {transport = #kvrm.transport<staged>}
// CHECK-NOT: kvrm.stage
// CHECK: kvrm.attend %{{.*}}, %[[G]] of
// CHECK: scf.if
// CHECK: kvrm.attend %{{.*}}, %[[G]] of
// CHECK: kvrm.attend %{{.*}}, %[[G]] of
!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = f16, layout = transposed_keys>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>
func.func @three_layers(%q: tensor<2x1x4x64xf32>, %again: i1, %s: !session) attributes {kvrm.step} {
  %d = kvrm.commit %s : !session -> !desc
  %p = kvrm.positions %d : !desc -> tensor<2xi32>
  %g0 = kvrm.stage %s, %d {transport = #kvrm.transport<staged>} : !session, !desc
  %o0 = kvrm.attend %q, %g0 of %s at %d {layer = 0 : i64, scale = 0.125 : f32} : tensor<2x1x4x64xf32>, !session, !desc
  scf.if %again {
    %g1 = kvrm.stage %s, %d {transport = #kvrm.transport<staged>} : !session, !desc
    %o1 = kvrm.attend %q, %g1 of %s at %d {layer = 1 : i64, scale = 0.125 : f32} : tensor<2x1x4x64xf32>, !session, !desc
  }
  %g2 = kvrm.stage %s, %d {transport = #kvrm.transport<staged>} : !session, !desc
  %o2 = kvrm.attend %o0, %g2 of %s at %d {layer = 1 : i64, scale = 0.125 : f32} : tensor<2x1x4x64xf32>, !session, !desc
  return
}

// A step without a stage, and what is no step, stay as they are.

// CHECK-LABEL: func.func @no_stage
// CHECK-NEXT: kvrm.commit
// CHECK-NEXT: return
func.func @no_stage(%s: !session) attributes {kvrm.step} {
  %d = kvrm.commit %s : !session -> !desc
  return
}

// CHECK-LABEL: func.func @no_step
// CHECK-COUNT-2: kvrm.stage
func.func @no_step(%s: !session, %d: !desc) -> (!kvrm.groups, !kvrm.groups) {
  %g0 = kvrm.stage %s, %d {transport = #kvrm.transport<native>} : !session, !desc
  %g1 = kvrm.stage %s, %d {transport = #kvrm.transport<native>} : !session, !desc
  return %g0, %g1 : !kvrm.groups, !kvrm.groups
}

// -----

!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = f16, layout = transposed_keys>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>
func.func @two_transports(%s: !session) attributes {kvrm.step} {
  %d = kvrm.commit %s : !session -> !desc
  // expected-note@+1 {{the first stage is here}}
  %g0 = kvrm.stage %s, %d {transport = #kvrm.transport<native>} : !session, !desc
  // expected-error@+1 {{'kvrm.stage' op asks for another transport than the step's first}}
  %g1 = kvrm.stage %s, %d {transport = #kvrm.transport<staged>} : !session, !desc
  return
}
