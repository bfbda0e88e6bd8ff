// RUN: kvrm-opt %s --kvrm-generate-kernels -split-input-file -verify-diagnostics

!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = f16, layout = transposed_keys>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>
func.func @step(%q: tensor<2x1x4x64xf32>, %s: !session) attributes {kvrm.step} {
  %d = kvrm.commit %s : !session -> !desc
  %g = kvrm.stage %s, %d {transport = #kvrm.transport<native>} : !session, !desc
  // expected-error@+1 {{'kvrm.attend' op has no tile or schedule; run kvrm-select-schedule first}}
  %o = kvrm.attend %q, %g of %s at %d {layer = 0 : i64, scale = 0.125 : f32} : tensor<2x1x4x64xf32>, !session, !desc
  return
}

// -----

!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = f16, layout = transposed_keys>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>
func.func @step(%q: tensor<2x1x4x64xf32>, %s: !session) attributes {kvrm.step} {
  %d = kvrm.commit %s : !session -> !desc
  %g = kvrm.stage %s, %d {transport = #kvrm.transport<native>} : !session, !desc
  // expected-error@+1 {{'kvrm.attend' op has no tile or schedule; run kvrm-select-schedule first}}
  %o = kvrm.attend %q, %g of %s at %d {layer = 0 : i64, scale = 0.125 : f32, tile = #kvrm.tile<q = 1, kv = 64>} : tensor<2x1x4x64xf32>, !session, !desc
  return
}

// -----

!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = f16, layout = transposed_keys>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>
func.func @step(%q: tensor<2x1x4x64xf32>, %s: !session) attributes {kvrm.step} {
  %d = kvrm.commit %s : !session -> !desc
  %g = kvrm.stage %s, %d {transport = #kvrm.transport<native>} : !session, !desc
  %o = kvrm.attend %q, %g of %s at %d {layer = 0 : i64, scale = 0.125 : f32, tile = #kvrm.tile<q = 1, kv = 64>,
      schedule = #kvrm.schedule<workqueue>} : tensor<2x1x4x64xf32>, !session, !desc
  // expected-error@+1 {{'kvrm.attend' op and the step's first attend differ in tile, schedule or transport; one plan serves all layers}}
  %r = kvrm.attend %o, %g of %s at %d {layer = 1 : i64, scale = 0.125 : f32, tile = #kvrm.tile<q = 1, kv = 32>,
      schedule = #kvrm.schedule<workqueue>} : tensor<2x1x4x64xf32>, !session, !desc
  return
}

// -----

!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = f16, layout = transposed_keys>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>
func.func @step(%q: tensor<2x1x4x64xf32>, %s: !session) attributes {kvrm.step} {
  %d = kvrm.commit %s : !session -> !desc
  %g = kvrm.stage %s, %d {transport = #kvrm.transport<native>} : !session, !desc
  %o = kvrm.attend %q, %g of %s at %d {layer = 0 : i64, scale = 0.125 : f32, tile = #kvrm.tile<q = 1, kv = 64>,
      schedule = #kvrm.schedule<workqueue>} : tensor<2x1x4x64xf32>, !session, !desc
  // expected-error@+1 {{'kvrm.attend' op and the step's first attend differ in tile, schedule or transport; one plan serves all layers}}
  %r = kvrm.attend %o, %g of %s at %d {layer = 1 : i64, scale = 0.125 : f32, tile = #kvrm.tile<q = 1, kv = 64>,
      schedule = #kvrm.schedule<rows>} : tensor<2x1x4x64xf32>, !session, !desc
  return
}

// -----

!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = f16, layout = transposed_keys>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>
func.func @step(%q: tensor<2x1x4x64xf32>, %g: !kvrm.groups, %s: !session) attributes {kvrm.step} {
  %d = kvrm.commit %s : !session -> !desc
  // expected-error@+1 {{'kvrm.attend' op groups do not come from a kvrm.stage}}
  %o = kvrm.attend %q, %g of %s at %d {layer = 0 : i64, scale = 0.125 : f32, tile = #kvrm.tile<q = 1, kv = 64>,
      schedule = #kvrm.schedule<workqueue>} : tensor<2x1x4x64xf32>, !session, !desc
  return
}

// -----

!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = f16, layout = transposed_keys>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>
func.func @step(%k: tensor<2x1x2x64xf32>, %s: !session) attributes {kvrm.step} {
  %d = kvrm.commit %s : !session -> !desc
  // expected-error@+1 {{'kvrm.append' op stands in a step that never attends}}
  kvrm.append %k, %k to %s at %d {layer = 0 : i64} : tensor<2x1x2x64xf32>, !session, !desc
  return
}

// -----

!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = f16, layout = transposed_keys>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>
!prompt = !kvrm.descriptor<rows = 1, queries = 8, pages = 4>
func.func @step(%q: tensor<2x1x4x64xf32>, %s: !session) attributes {kvrm.step} {
  %d:2 = kvrm.commit %s : !session -> !desc, !prompt
  %g = kvrm.stage %s, %d#1 {transport = #kvrm.transport<native>} : !session, !prompt
  // expected-error@+1 {{'kvrm.attend' op takes the groups of another batch}}
  %o = kvrm.attend %q, %g of %s at %d#0 {layer = 0 : i64, scale = 0.125 : f32, tile = #kvrm.tile<q = 1, kv = 64>,
      schedule = #kvrm.schedule<workqueue>} : tensor<2x1x4x64xf32>, !session, !desc
  return
}

// -----

!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = f16, layout = transposed_keys>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>
!prompt = !kvrm.descriptor<rows = 1, queries = 8, pages = 4>
// expected-error@+1 {{'func.func' op commits a descriptor that nothing attends with}}
func.func @step(%q: tensor<2x1x4x64xf32>, %s: !session) attributes {kvrm.step} {
  %d:2 = kvrm.commit %s : !session -> !desc, !prompt
  %g = kvrm.stage %s, %d#0 {transport = #kvrm.transport<native>} : !session, !desc
  %o = kvrm.attend %q, %g of %s at %d#0 {layer = 0 : i64, scale = 0.125 : f32, tile = #kvrm.tile<q = 1, kv = 64>,
      schedule = #kvrm.schedule<workqueue>} : tensor<2x1x4x64xf32>, !session, !desc
  return
}
