// RUN: kvrm-opt %s -split-input-file -verify-diagnostics

// A step is in one phase, and if it is paged it commits exactly once, before all
// that the descriptor describes.

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @step(%s: !session) attributes {kvrm.step} {
  // expected-note@+1 {{the first commit is here}}
  %a = kvrm.commit %s : !session -> !desc
  // expected-error@+1 {{'kvrm.commit' op is the second of its step; a step commits once}}
  %b = kvrm.commit %s : !session -> !desc
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @step(%s: !session, %i: i1) attributes {kvrm.step} {
  scf.if %i {
    // expected-error@+1 {{'kvrm.commit' op does not dominate the step: it must stand in its entry block}}
    %d = kvrm.commit %s : !session -> !desc
  }
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @step(%s: !session) attributes {kvrm.step} {
  cf.br ^bb1
^bb1:
  // expected-error@+1 {{'kvrm.commit' op does not dominate the step: it must stand in its entry block}}
  %d = kvrm.commit %s : !session -> !desc
  return
}

// -----

// The descriptor comes before all that it describes.
!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @step(%k: tensor<8x1x3x64xf32>, %s: !session) attributes {kvrm.step} {
  // expected-error@+1 {{operand #3 does not dominate this use}}
  kvrm.append %k, %k to %s at %d {layer = 0 : i64} : tensor<8x1x3x64xf32>, !session, !desc
  // expected-note@+1 {{operand defined here}}
  %d = kvrm.commit %s : !session -> !desc
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @step(%s: !session) attributes {kvrm.step} {
  // expected-error@+1 {{operand #0 does not dominate this use}}
  %p = kvrm.positions %d : !desc -> tensor<8xi32>
  // expected-note@+1 {{operand defined here}}
  %d = kvrm.commit %s : !session -> !desc
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @step(%k: tensor<8x1x3x64xf32>, %s: !session, %d: !desc) attributes {kvrm.step} {
  // expected-error@+1 {{'kvrm.append' op stands in a step that never commits}}
  kvrm.append %k, %k to %s at %d {layer = 0 : i64} : tensor<8x1x3x64xf32>, !session, !desc
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @step(%q: tensor<8x1x9x64xf32>, %g: !kvrm.groups, %s: !session, %d: !desc) attributes {kvrm.step} {
  // expected-error@+1 {{'kvrm.attend' op stands in a step that never commits}}
  %o = kvrm.attend %q, %g of %s at %d {layer = 0 : i64, scale = 0.125 : f32} : tensor<8x1x9x64xf32>, !session, !desc
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @step(%s: !session, %d: !desc) attributes {kvrm.step} {
  // expected-error@+1 {{'kvrm.stage' op stands in a step that never commits}}
  %g = kvrm.stage %s, %d {transport = #kvrm.transport<native>} : !session, !desc
  return
}

// -----

!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @step(%d: !desc) attributes {kvrm.step} {
  // expected-error@+1 {{'kvrm.positions' op stands in a step that never commits}}
  %p = kvrm.positions %d : !desc -> tensor<8xi32>
  return
}

// -----

!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @step(%d: !desc) attributes {kvrm.step} {
  // expected-error@+1 {{'kvrm.counts' op stands in a step that never commits}}
  %p = kvrm.counts %d : !desc -> tensor<8xi32>
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @step(%k: tensor<8x1x3x64xf32>, %s: !session, %d: !desc) attributes {kvrm.step} {
  // expected-error@+1 {{'kvrm.launch' op stands in a step that never commits}}
  kvrm.launch @append(%s, %d) ins(%k, %k : tensor<8x1x3x64xf32>, tensor<8x1x3x64xf32>) {layer = 0 : i64} : !session, !desc
  return
}
func.func private @append()

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @step(%k: tensor<8x1x3x64xf32>, %s: !session, %d: !desc) attributes {kvrm.step} {
  %c = kvrm.commit %s : !session -> !desc
  // expected-error@+1 {{'kvrm.append' op takes a descriptor that its step did not commit}}
  kvrm.append %k, %k to %s at %d {layer = 0 : i64} : tensor<8x1x3x64xf32>, !session, !desc
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @step(%k: tensor<8x1x3x64xf32>, %t: !session, %s: !session) attributes {kvrm.step} {
  %d = kvrm.commit %t : !session -> !desc
  // expected-error@+1 {{'kvrm.append' op takes a session other than the one its step commits}}
  kvrm.append %k, %k to %s at %d {layer = 0 : i64} : tensor<8x1x3x64xf32>, !session, !desc
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @step(%i: i1, %t: !session, %s: !session) attributes {kvrm.step} {
  %d = kvrm.commit %t : !session -> !desc
  scf.if %i {
    // expected-error@+1 {{'kvrm.stage' op takes a session other than the one its step commits}}
    %g = kvrm.stage %s, %d {transport = #kvrm.transport<native>} : !session, !desc
  }
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @step(%q: tensor<8x1x9x64xf32>, %k: tensor<8x1x3x64xf32>, %c: tensor<30x8x3x2048x64xf16>, %p: tensor<8xi32>, %s: !session) attributes {kvrm.step} {
  // expected-note@+1 {{'kvrm.commit' sets the step's phase}}
  %d = kvrm.commit %s : !session -> !desc
  // expected-error@+1 {{'kvrm.cached_attention' op of phase static stands in a step of phase paged|kernels}}
  %o, %kc, %vc = kvrm.cached_attention %q, %k, %k, %c, %c at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<8x1x9x64xf32>, tensor<8x1x3x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<8xi32>
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @step(%q: tensor<8x1x9x64xf32>, %k: tensor<8x1x3x64xf32>, %c: tensor<30x8x3x2048x64xf16>, %p: tensor<8xi32>,
                %s: !session, %d: !desc) attributes {kvrm.step} {
  // expected-note@+1 {{'kvrm.cached_attention' sets the step's phase}}
  %o, %kc, %vc = kvrm.cached_attention %q, %k, %k, %c, %c at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<8x1x9x64xf32>, tensor<8x1x3x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<8xi32>
  // expected-error@+1 {{'kvrm.append' op of phase paged stands in a step of phase static}}
  kvrm.append %k, %k to %s at %d {layer = 0 : i64} : tensor<8x1x3x64xf32>, !session, !desc
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @step(%q: tensor<8x1x9x64xf32>, %k: tensor<8x1x3x64xf32>, %c: tensor<30x8x3x2048x64xf16>, %p: tensor<8xi32>,
                %s: !session) attributes {kvrm.step} {
  %d = kvrm.commit %s : !session -> !desc
  // expected-note@+1 {{'kvrm.append' sets the step's phase}}
  kvrm.append %k, %k to %s at %d {layer = 0 : i64} : tensor<8x1x3x64xf32>, !session, !desc
  // expected-error@+1 {{'kvrm.cached_attention' op of phase static stands in a step of phase paged}}
  %o, %kc, %vc = kvrm.cached_attention %q, %k, %k, %c, %c at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<8x1x9x64xf32>, tensor<8x1x3x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<8xi32>
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @step(%k: tensor<8x1x3x64xf32>, %s: !session) attributes {kvrm.step} {
  %d = kvrm.commit %s : !session -> !desc
  // expected-note@+1 {{'kvrm.append' sets the step's phase}}
  kvrm.append %k, %k to %s at %d {layer = 0 : i64} : tensor<8x1x3x64xf32>, !session, !desc
  // expected-error@+1 {{'kvrm.launch' op of phase kernels stands in a step of phase paged}}
  kvrm.launch @append(%s, %d) ins(%k, %k : tensor<8x1x3x64xf32>, tensor<8x1x3x64xf32>) {layer = 0 : i64} : !session, !desc
  return
}
func.func private @append()

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @step(%q: tensor<8x1x9x64xf32>, %g: !kvrm.groups, %s: !session) attributes {kvrm.step} {
  %d = kvrm.commit %s : !session -> !desc
  // expected-note@+1 {{'kvrm.dispatch' sets the step's phase}}
  kvrm.dispatch @dense tasks 1
  // expected-error@+1 {{'kvrm.attend' op of phase paged stands in a step of phase kernels}}
  %o = kvrm.attend %q, %g of %s at %d {layer = 0 : i64, scale = 0.125 : f32} : tensor<8x1x9x64xf32>, !session, !desc
  return
}
func.func private @dense(index, index)

// -----

// Nesting hides nothing.
func.func @step(%q: tensor<8x1x9x64xf32>, %k: tensor<8x1x3x64xf32>, %c: tensor<30x8x3x2048x64xf16>, %p: tensor<8xi32>,
                %i: i1) attributes {kvrm.step} {
  // expected-note@+1 {{'kvrm.dispatch' sets the step's phase}}
  kvrm.dispatch @dense tasks 1
  scf.if %i {
    // expected-error@+1 {{'kvrm.cached_attention' op of phase static stands in a step of phase kernels}}
    %o, %kc, %vc = kvrm.cached_attention %q, %k, %k, %c, %c at %p {layer = 0 : i64, scale = 0.125 : f32}
        : tensor<8x1x9x64xf32>, tensor<8x1x3x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<8xi32>
  }
  return
}
func.func private @dense(index, index)

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
func.func @step(%s: !session) attributes {kvrm.step} {
  // expected-error@+1 {{'kvrm.commit' op has 0 descriptors, outside 1..2}}
  "kvrm.commit"(%s) : (!session) -> ()
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @step(%s: !session) attributes {kvrm.step} {
  // expected-error@+1 {{'kvrm.commit' op has 3 descriptors, outside 1..2}}
  %d:3 = kvrm.commit %s : !session -> !desc, !desc, !desc
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
!other = !kvrm.descriptor<rows = 1, queries = 8, pages = 64>
func.func @step(%s: !session) attributes {kvrm.step} {
  // expected-error@+1 {{'kvrm.commit' op descriptor has 64 pages a row, session 128 a slot}}
  %d:2 = kvrm.commit %s : !session -> !desc, !other
  return
}

// -----

// Generic forms, whose operands, results and attributes may be missing: each is
// checked before its step asks for them.
!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @step(%s: !session, %d: !desc) attributes {kvrm.step} {
  // expected-error@+1 {{'kvrm.commit' op requires a single operand}}
  "kvrm.commit"() : () -> ()
  %g = kvrm.stage %s, %d {transport = #kvrm.transport<native>} : !session, !desc
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @step(%s: !session) attributes {kvrm.step} {
  // expected-error@+1 {{'kvrm.commit' op requires a single operand}}
  %d = "kvrm.commit"() : () -> !desc
  %g = kvrm.stage %s, %d {transport = #kvrm.transport<native>} : !session, !desc
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
func.func @step(%s: !session) attributes {kvrm.step} {
  // expected-error@+1 {{'kvrm.commit' op result #0 must be variadic of what one step is told about its rows, but got 'i32'}}
  %d = "kvrm.commit"(%s) : (!session) -> i32
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @step(%s: !session) attributes {kvrm.step} {
  %d = kvrm.commit %s : !session -> !desc
  // expected-error@+1 {{'kvrm.stage' op requires attribute 'transport'}}
  %g = "kvrm.stage"(%s, %d) : (!session, !desc) -> !kvrm.groups
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @step(%s: !session) attributes {kvrm.step} {
  %d = kvrm.commit %s : !session -> !desc
  // expected-error@+1 {{'kvrm.append' op expected 4 operands, but found 0}}
  "kvrm.append"() : () -> ()
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @step(%s: !session) attributes {kvrm.step} {
  %d = kvrm.commit %s : !session -> !desc
  // expected-error@+1 {{'kvrm.launch' op expected 2 or more operands, but found 1}}
  "kvrm.launch"(%d) <{kernel = @k, layer = 0 : i64, operandSegmentSizes = array<i32: 1, 0, 0, 0>}> : (!desc) -> ()
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @step(%s: !session) attributes {kvrm.step} {
  %d = kvrm.commit %s : !session -> !desc
  // expected-error@+1 {{'kvrm.launch' op operand count (2) does not match with the total size (4) specified in attribute 'operandSegmentSizes'}}
  "kvrm.launch"(%s, %d) <{kernel = @k, layer = 0 : i64, operandSegmentSizes = array<i32: 1, 1, 1, 1>}> : (!session, !desc) -> ()
  return
}

// -----

// The kernel that a launch names is checked before the launch asks it.
!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @step(%k: tensor<8x1x3x64xf32>, %s: !session) attributes {kvrm.step} {
  %d = kvrm.commit %s : !session -> !desc
  kvrm.launch @append(%s, %d) ins(%k, %k : tensor<8x1x3x64xf32>, tensor<8x1x3x64xf32>) {layer = 0 : i64} : !session, !desc
  return
}
// expected-error@+1 {{'kvrm.kernel' op requires attribute 'descriptor'}}
"kvrm.kernel"() <{sym_name = "append"}> ({
  "kvrm.return"() : () -> ()
}) : () -> ()

// -----

func.func @step() attributes {kvrm.step} {
  // expected-error@+1 {{'kvrm.dispatch' op requires attribute 'callee'}}
  "kvrm.dispatch"() <{operandSegmentSizes = array<i32: 0, 0>}> : () -> ()
  return
}

// -----

// A function without a body to look into.
// expected-error@+1 {{'func.func' op requires one region}}
"func.func"() <{function_type = () -> (), sym_name = "step"}> {kvrm.step} : () -> ()
