// RUN: kvrm-opt %s --kvrm-page-cache -split-input-file -verify-diagnostics

// No step is changed unless all can be.

// A step that forgets what it wrote.
func.func @step(%q: tensor<2x1x4x64xf32>, %k: tensor<2x1x2x64xf32>, %p: tensor<2xi32>, %kc: tensor<1x2x2x64x64xf16>, %vc: tensor<1x2x2x64x64xf16>)
    -> (tensor<2x1x4x64xf32>) attributes {kvrm.step} {
  // expected-error@+1 {{a KV cache must have one use, in kvrm.cached_attention or the step's return}}
  %o, %o_k, %o_v = kvrm.cached_attention %q, %k, %k, %kc, %vc at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<2x1x4x64xf32>, tensor<2x1x2x64xf32>, tensor<1x2x2x64x64xf16>, tensor<2xi32>
  return %o : tensor<2x1x4x64xf32>
}

// -----

// A cache with two uses.
func.func @step(%q: tensor<2x1x4x64xf32>, %k: tensor<2x1x2x64xf32>, %p: tensor<2xi32>, %kc: tensor<1x2x2x64x64xf16>, %vc: tensor<1x2x2x64x64xf16>)
    -> (tensor<2x1x4x64xf32>, tensor<1x2x2x64x64xf16>, tensor<1x2x2x64x64xf16>, tensor<1x2x2x64x64xf16>) attributes {kvrm.step} {
  // expected-error@+1 {{a KV cache must have one use, in kvrm.cached_attention or the step's return}}
  %o, %o_k, %o_v = kvrm.cached_attention %q, %k, %k, %kc, %vc at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<2x1x4x64xf32>, tensor<2x1x2x64xf32>, tensor<1x2x2x64x64xf16>, tensor<2xi32>
  // expected-note@+1 {{used here}}
  return %o, %o_k, %o_v, %o_k : tensor<2x1x4x64xf32>, tensor<1x2x2x64x64xf16>, tensor<1x2x2x64x64xf16>, tensor<1x2x2x64x64xf16>
}

// -----

func.func @step(%q: tensor<2x1x4x64xf32>, %k: tensor<2x1x2x64xf32>, %p: tensor<2xi32>, %kc: tensor<1x2x2x64x64xf16>, %vc: tensor<1x2x2x64x64xf16>)
    -> (tensor<2x1x4x64xf32>, tensor<1x2x2x64x64xf16>) attributes {kvrm.step} {
  %i = arith.constant 0 : index
  %o, %o_k, %o_v = kvrm.cached_attention %q, %k, %k, %kc, %vc at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<2x1x4x64xf32>, tensor<2x1x2x64xf32>, tensor<1x2x2x64x64xf16>, tensor<2xi32>
  // expected-error@+1 {{'tensor.extract' op uses a KV cache; only kvrm.cached_attention may}}
  %e = tensor.extract %o_k[%i, %i, %i, %i, %i] : tensor<1x2x2x64x64xf16>
  return %o, %o_v : tensor<2x1x4x64xf32>, tensor<1x2x2x64x64xf16>
}

// -----

// Two pairs of caches.
func.func @step(%q: tensor<2x1x4x64xf32>, %k: tensor<2x1x2x64xf32>, %p: tensor<2xi32>, %kc: tensor<1x2x2x64x64xf16>, %vc: tensor<1x2x2x64x64xf16>, %kd: tensor<1x2x2x64x64xf16>, %vd: tensor<1x2x2x64x64xf16>)
    -> (tensor<2x1x4x64xf32>, tensor<1x2x2x64x64xf16>, tensor<1x2x2x64x64xf16>, tensor<1x2x2x64x64xf16>, tensor<1x2x2x64x64xf16>) attributes {kvrm.step} {
  // expected-note@+1 {{the first caches are here}}
  %o, %o_k, %o_v = kvrm.cached_attention %q, %k, %k, %kc, %vc at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<2x1x4x64xf32>, tensor<2x1x2x64xf32>, tensor<1x2x2x64x64xf16>, tensor<2xi32>
  // expected-error@+1 {{'kvrm.cached_attention' op has caches other than the step's first; a step has one pair, which goes through all layers}}
  %r, %r_k, %r_v = kvrm.cached_attention %o, %k, %k, %kd, %vd at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<2x1x4x64xf32>, tensor<2x1x2x64xf32>, tensor<1x2x2x64x64xf16>, tensor<2xi32>
  return %r, %o_k, %o_v, %r_k, %r_v : tensor<2x1x4x64xf32>, tensor<1x2x2x64x64xf16>, tensor<1x2x2x64x64xf16>, tensor<1x2x2x64x64xf16>, tensor<1x2x2x64x64xf16>
}

// -----

// Caches that are no arguments.
func.func @step(%q: tensor<2x1x4x64xf32>, %k: tensor<2x1x2x64xf32>, %p: tensor<2xi32>, %kc: tensor<1x2x2x64x64xf16>, %vc: tensor<1x2x2x64x64xf16>)
    -> (tensor<2x1x4x64xf32>, tensor<1x2x2x64x64xf16>, tensor<1x2x2x64x64xf16>) attributes {kvrm.step} {
  %e = tensor.empty() : tensor<1x2x2x64x64xf16>
  // expected-error@+1 {{'kvrm.cached_attention' op the first caches of a step must be its arguments}}
  %o, %o_k, %o_v = kvrm.cached_attention %q, %k, %k, %e, %vc at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<2x1x4x64xf32>, tensor<2x1x2x64xf32>, tensor<1x2x2x64x64xf16>, tensor<2xi32>
  return %o, %o_k, %o_v : tensor<2x1x4x64xf32>, tensor<1x2x2x64x64xf16>, tensor<1x2x2x64x64xf16>
}

// -----

func.func @step(%q: tensor<2x1x4x64xf32>, %k: tensor<2x1x2x64xf32>, %p: tensor<2xi32>, %kc: tensor<1x2x2x64x64xf16>, %vc: tensor<1x2x2x64x64xf16>)
    -> (tensor<2x1x4x64xf32>, tensor<1x2x2x64x64xf16>, tensor<1x2x2x64x64xf16>) attributes {kvrm.step} {
  %s = arith.addi %p, %p : tensor<2xi32>
  // expected-error@+1 {{'kvrm.cached_attention' op positions, counts and slots must be arguments of the step}}
  %o, %o_k, %o_v = kvrm.cached_attention %q, %k, %k, %kc, %vc at %s {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<2x1x4x64xf32>, tensor<2x1x2x64xf32>, tensor<1x2x2x64x64xf16>, tensor<2xi32>
  return %o, %o_k, %o_v : tensor<2x1x4x64xf32>, tensor<1x2x2x64x64xf16>, tensor<1x2x2x64x64xf16>
}

// -----

// expected-error@+1 {{'func.func' op has two batches of all slots; a slot is in one batch of a step}}
func.func @step(%q: tensor<2x1x4x64xf32>, %k: tensor<2x1x2x64xf32>, %p: tensor<2xi32>, %kc: tensor<1x2x2x64x64xf16>, %vc: tensor<1x2x2x64x64xf16>, %p1: tensor<2xi32>)
    -> (tensor<2x1x4x64xf32>, tensor<1x2x2x64x64xf16>, tensor<1x2x2x64x64xf16>) attributes {kvrm.step} {
  %o, %o_k, %o_v = kvrm.cached_attention %q, %k, %k, %kc, %vc at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<2x1x4x64xf32>, tensor<2x1x2x64xf32>, tensor<1x2x2x64x64xf16>, tensor<2xi32>
  %r, %r_k, %r_v = kvrm.cached_attention %o, %k, %k, %o_k, %o_v at %p1 {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<2x1x4x64xf32>, tensor<2x1x2x64xf32>, tensor<1x2x2x64x64xf16>, tensor<2xi32>
  return %r, %r_k, %r_v : tensor<2x1x4x64xf32>, tensor<1x2x2x64x64xf16>, tensor<1x2x2x64x64xf16>
}

// -----

func.func @step(%q: tensor<1x1x4x64xf32>, %k: tensor<1x1x2x64xf32>, %p: tensor<1xi32>, %s: tensor<1xi32>, %kc: tensor<2x2x2x64x64xf16>, %vc: tensor<2x2x2x64x64xf16>, %s1: tensor<1xi32>)
    -> (tensor<1x1x4x64xf32>, tensor<2x2x2x64x64xf16>, tensor<2x2x2x64x64xf16>) attributes {kvrm.step} {
  %o, %o_k, %o_v = kvrm.cached_attention %q, %k, %k, %kc, %vc at %p slot %s : tensor<1xi32> {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<1x1x4x64xf32>, tensor<1x1x2x64xf32>, tensor<2x2x2x64x64xf16>, tensor<1xi32>
  // expected-error@+1 {{'kvrm.cached_attention' op all layers of a step must share positions, counts and slots}}
  %r, %r_k, %r_v = kvrm.cached_attention %o, %k, %k, %o_k, %o_v at %p slot %s1 : tensor<1xi32> {layer = 1 : i64, scale = 0.125 : f32}
      : tensor<1x1x4x64xf32>, tensor<1x1x2x64xf32>, tensor<2x2x2x64x64xf16>, tensor<1xi32>
  return %r, %r_k, %r_v : tensor<1x1x4x64xf32>, tensor<2x2x2x64x64xf16>, tensor<2x2x2x64x64xf16>
}

// -----

func.func @step(%q: tensor<1x1x4x64xf32>, %k: tensor<1x1x2x64xf32>, %p: tensor<1xi32>, %s: tensor<1xi32>, %kc: tensor<2x2x2x64x64xf16>, %vc: tensor<2x2x2x64x64xf16>, %p1: tensor<1xi32>, %s1: tensor<1xi32>)
    -> (tensor<1x1x4x64xf32>, tensor<2x2x2x64x64xf16>, tensor<2x2x2x64x64xf16>) attributes {kvrm.step} {
  // expected-error@+1 {{'kvrm.cached_attention' op layer 0 does not attend once for each of the step's 2 batches}}
  %o, %o_k, %o_v = kvrm.cached_attention %q, %k, %k, %kc, %vc at %p slot %s : tensor<1xi32> {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<1x1x4x64xf32>, tensor<1x1x2x64xf32>, tensor<2x2x2x64x64xf16>, tensor<1xi32>
  %r, %r_k, %r_v = kvrm.cached_attention %o, %k, %k, %o_k, %o_v at %p1 slot %s1 : tensor<1xi32> {layer = 1 : i64, scale = 0.125 : f32}
      : tensor<1x1x4x64xf32>, tensor<1x1x2x64xf32>, tensor<2x2x2x64x64xf16>, tensor<1xi32>
  return %r, %r_k, %r_v : tensor<1x1x4x64xf32>, tensor<2x2x2x64x64xf16>, tensor<2x2x2x64x64xf16>
}

// -----

// expected-error@+1 {{'func.func' op has 3 batches with positions of their own, more than 2}}
func.func @step(%q: tensor<1x1x4x64xf32>, %k: tensor<1x1x2x64xf32>, %p: tensor<1xi32>, %s: tensor<1xi32>, %kc: tensor<1x4x2x64x64xf16>, %vc: tensor<1x4x2x64x64xf16>, %p1: tensor<1xi32>, %s1: tensor<1xi32>, %p2: tensor<1xi32>, %s2: tensor<1xi32>)
    -> (tensor<1x1x4x64xf32>, tensor<1x4x2x64x64xf16>, tensor<1x4x2x64x64xf16>) attributes {kvrm.step} {
  %o, %o_k, %o_v = kvrm.cached_attention %q, %k, %k, %kc, %vc at %p slot %s : tensor<1xi32> {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<1x1x4x64xf32>, tensor<1x1x2x64xf32>, tensor<1x4x2x64x64xf16>, tensor<1xi32>
  %r, %r_k, %r_v = kvrm.cached_attention %o, %k, %k, %o_k, %o_v at %p1 slot %s1 : tensor<1xi32> {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<1x1x4x64xf32>, tensor<1x1x2x64xf32>, tensor<1x4x2x64x64xf16>, tensor<1xi32>
  %t, %t_k, %t_v = kvrm.cached_attention %r, %k, %k, %r_k, %r_v at %p2 slot %s2 : tensor<1xi32> {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<1x1x4x64xf32>, tensor<1x1x2x64xf32>, tensor<1x4x2x64x64xf16>, tensor<1xi32>
  return %t, %t_k, %t_v : tensor<1x1x4x64xf32>, tensor<1x4x2x64x64xf16>, tensor<1x4x2x64x64xf16>
}

// -----

// The paged graph does not know which slot a row is in.
func.func @step(%q: tensor<2x1x4x64xf32>, %k: tensor<2x1x2x64xf32>, %p: tensor<2xi32>, %kc: tensor<1x2x2x64x64xf16>, %vc: tensor<1x2x2x64x64xf16>, %s: tensor<2xi32>)
    -> (tensor<2x1x4x64xf32>, tensor<1x2x2x64x64xf16>, tensor<1x2x2x64x64xf16>, tensor<2xi32>) attributes {kvrm.step} {
  // expected-error@+1 {{'kvrm.cached_attention' op slots are used outside kvrm.cached_attention; a paged graph does not see them}}
  %o, %o_k, %o_v = kvrm.cached_attention %q, %k, %k, %kc, %vc at %p slot %s : tensor<2xi32> {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<2x1x4x64xf32>, tensor<2x1x2x64xf32>, tensor<1x2x2x64x64xf16>, tensor<2xi32>
  return %o, %o_k, %o_v, %s : tensor<2x1x4x64xf32>, tensor<1x2x2x64x64xf16>, tensor<1x2x2x64x64xf16>, tensor<2xi32>
}

// -----

// expected-error@+1 {{'func.func' op has control flow; a step to page has one block}}
func.func @step(%q: tensor<2x1x4x64xf32>, %k: tensor<2x1x2x64xf32>, %p: tensor<2xi32>, %kc: tensor<1x2x2x64x64xf16>, %vc: tensor<1x2x2x64x64xf16>)
    -> (tensor<2x1x4x64xf32>, tensor<1x2x2x64x64xf16>, tensor<1x2x2x64x64xf16>) attributes {kvrm.step} {
  %o, %o_k, %o_v = kvrm.cached_attention %q, %k, %k, %kc, %vc at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<2x1x4x64xf32>, tensor<2x1x2x64xf32>, tensor<1x2x2x64x64xf16>, tensor<2xi32>
  cf.br ^bb1
^bb1:
  return %o, %o_k, %o_v : tensor<2x1x4x64xf32>, tensor<1x2x2x64x64xf16>, tensor<1x2x2x64x64xf16>
}

// -----

// One session serves the module.
func.func @step(%q: tensor<2x1x4x64xf32>, %k: tensor<2x1x2x64xf32>, %p: tensor<2xi32>, %kc: tensor<1x2x2x64x64xf16>, %vc: tensor<1x2x2x64x64xf16>)
    -> (tensor<2x1x4x64xf32>, tensor<1x2x2x64x64xf16>, tensor<1x2x2x64x64xf16>) attributes {kvrm.step} {
  %o, %o_k, %o_v = kvrm.cached_attention %q, %k, %k, %kc, %vc at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<2x1x4x64xf32>, tensor<2x1x2x64xf32>, tensor<1x2x2x64x64xf16>, tensor<2xi32>
  return %o, %o_k, %o_v : tensor<2x1x4x64xf32>, tensor<1x2x2x64x64xf16>, tensor<1x2x2x64x64xf16>
}

// expected-error@+1 {{needs another session than the module's first step}}
func.func @prefill(%q: tensor<2x1x4x64xf32>, %k: tensor<2x1x2x64xf32>, %p: tensor<2xi32>, %kc: tensor<1x2x2x128x64xf16>, %vc: tensor<1x2x2x128x64xf16>)
    -> (tensor<2x1x4x64xf32>, tensor<1x2x2x128x64xf16>, tensor<1x2x2x128x64xf16>) attributes {kvrm.step} {
  %o, %o_k, %o_v = kvrm.cached_attention %q, %k, %k, %kc, %vc at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<2x1x4x64xf32>, tensor<2x1x2x64xf32>, tensor<1x2x2x128x64xf16>, tensor<2xi32>
  return %o, %o_k, %o_v : tensor<2x1x4x64xf32>, tensor<1x2x2x128x64xf16>, tensor<1x2x2x128x64xf16>
}

// -----

// What the runtime cannot hold is not paged.
// expected-error@+1 {{cannot page the caches: layers is 2000, outside 1..1024}}
func.func @step(%q: tensor<2x1x4x64xf32>, %k: tensor<2x1x2x64xf32>, %p: tensor<2xi32>, %kc: tensor<2000x2x2x64x64xf16>, %vc: tensor<2000x2x2x64x64xf16>)
    -> (tensor<2x1x4x64xf32>, tensor<2000x2x2x64x64xf16>, tensor<2000x2x2x64x64xf16>) attributes {kvrm.step} {
  %o, %o_k, %o_v = kvrm.cached_attention %q, %k, %k, %kc, %vc at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<2x1x4x64xf32>, tensor<2x1x2x64xf32>, tensor<2000x2x2x64x64xf16>, tensor<2xi32>
  return %o, %o_k, %o_v : tensor<2x1x4x64xf32>, tensor<2000x2x2x64x64xf16>, tensor<2000x2x2x64x64xf16>
}

// -----

// A second layer that takes values for keys.
func.func @step(%q: tensor<2x1x4x64xf32>, %k: tensor<2x1x2x64xf32>, %p: tensor<2xi32>, %kc: tensor<2x2x2x64x64xf16>, %vc: tensor<2x2x2x64x64xf16>)
    -> (tensor<2x1x4x64xf32>, tensor<2x2x2x64x64xf16>, tensor<2x2x2x64x64xf16>) attributes {kvrm.step} {
  %o, %kc1, %vc1 = kvrm.cached_attention %q, %k, %k, %kc, %vc at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<2x1x4x64xf32>, tensor<2x1x2x64xf32>, tensor<2x2x2x64x64xf16>, tensor<2xi32>
  // expected-error@+1 {{'kvrm.cached_attention' op takes a cache of keys for one of values}}
  %r, %kc2, %vc2 = kvrm.cached_attention %o, %k, %k, %vc1, %kc1 at %p {layer = 1 : i64, scale = 0.125 : f32}
      : tensor<2x1x4x64xf32>, tensor<2x1x2x64xf32>, tensor<2x2x2x64x64xf16>, tensor<2xi32>
  return %r, %kc2, %vc2 : tensor<2x1x4x64xf32>, tensor<2x2x2x64x64xf16>, tensor<2x2x2x64x64xf16>
}
