// Steps that are nearly attention over a static cache: none may be raised. Each
// is the layer of Inputs/decode-layer.mlir with a line changed.

// DEFINE: %{raise} = kvrm-opt --kvrm-raise-static-cache 2>&1 | FileCheck %s --implicit-check-not=kvrm. --check-prefix
// DEFINE: %{layer} = %S/Inputs/decode-layer.mlir

// The mask leaves the last token out.
// RUN: sed -e 's/cmpi sle/cmpi slt/' %{layer} | %{raise}=STRICT
// STRICT: remark: not raised: the mask is not token <= position ({{.*}}): (k-arg3[b]+1 <= 0)

// A sliding window.
// RUN: sed -e 's/%%masked = arith.select %%seen/%%w = arith.constant 4 : i32\n%%gap = arith.subi %%p, %%place : i32\n%%near = arith.cmpi slt, %%gap, %%w : i32\n%%both = arith.andi %%seen, %%near : i1\n%%masked = arith.select %%both/' %{layer} | %{raise}=WINDOW
// WINDOW: remark: not raised: the mask is not token <= position ({{.*}}): (-k+arg3[b]-3 <= 0)

// The mask's position loses bits.
// RUN: sed -e 's/%%seen = arith.cmpi sle, %%place, %%p/%%few = arith.trunci %%p : i32 to i4\n%%last = arith.extsi %%few : i4 to i32\n%%seen = arith.cmpi sle, %%place, %%last/' %{layer} | %{raise}=WRAPS
// WRAPS: remark: not raised: the mask is not token <= position ({{.*}}): (k-arith.trunci(arg3[b]) <= 0)

// Keys and values at positions that lose bits, but not the same.
// RUN: sed -e 's/%%here = arith.cmpi eq, %%place, %%p : i32 \/\/ keys/%%few = arith.trunci %%p : i32 to i4\n%%wide = arith.extsi %%few : i4 to i32\n%%here = arith.cmpi eq, %%place, %%wide : i32/' -e 's/%%here = arith.cmpi eq, %%place, %%p : i32 \/\/ values/%%few = arith.trunci %%p : i32 to i3\n%%wide = arith.extsi %%few : i3 to i32\n%%here = arith.cmpi eq, %%place, %%wide : i32/' %{layer} | %{raise}=BITS
// BITS: remark: not raised: keys are written at arith.trunci(arg3[b]), values at arith.trunci(arg3[b])

// No mask at all; one that hides nothing.
// RUN: sed -e 's/arith.select %%seen, %%scaled, %%lowest/arith.maximumf %%scaled, %%scaled/' %{layer} | %{raise}=UNSCALED
// RUN: sed -e 's/cmpi sle, %%place, %%p/cmpi sge, %%place, %%place/' %{layer} | %{raise}=OPEN
// RUN: sed -e 's/%%scaled, %%lowest/%%scaled, %%scale/' %{layer} | %{raise}=SELECTED
// UNSCALED: remark: not raised: scores are no scaled product of queries and keys: arith.maximumf(
// OPEN: remark: not raised: no mask hides the tokens behind the position
// SELECTED: remark: not raised: scores are selected by something that is no mask

// Infinity times 0, where a token is seen, is no number.
// RUN: sed -e 's/%%masked = arith.select %%seen, %%scaled, %%lowest : f32/%%one = arith.constant 1.0 : f32\n%%truth = arith.uitofp %%seen : i1 to f32\n%%hides = arith.subf %%one, %%truth : f32\n%%term = arith.mulf %%hides, %%lowest : f32\n%%masked = arith.addf %%scaled, %%term : f32/' %{layer} > %t.product.mlir
// RUN: cat %t.product.mlir | %{raise}=PRODUCT
// RUN: sed -e 's/0xFF800000/-1.0e9/' %t.product.mlir | kvrm-opt --kvrm-raise-static-cache=analyse-only 2>&1 \
// RUN:   | FileCheck %s --check-prefix=LARGE
// PRODUCT: remark: not raised: something that is no mask is added to the scores
// LARGE: remark: layer 0: {{.*}}, finite mask

// Soft-capping, a bias, a negative scale, a rounding.
// RUN: sed -e 's/%%scaled = arith.mulf %%product/%%capped = math.tanh %%product : f32\n%%scaled = arith.mulf %%capped/' %{layer} | %{raise}=SOFTCAP
// RUN: sed -e 's/%%scaled = arith.mulf/%%scaled = arith.addf/' %{layer} | %{raise}=BIAS
// RUN: sed -e 's/constant 0.125/constant -0.125/' %{layer} | %{raise}=NEGATIVE
// RUN: sed -e 's/%%scaled = arith.mulf %%product/%%less = arith.truncf %%product : f32 to bf16\n%%again = arith.extf %%less : bf16 to f32\n%%scaled = arith.mulf %%again/' %{layer} | %{raise}=ROUNDED
// SOFTCAP: remark: not raised: scores are no scaled product of queries and keys: math.tanh(
// BIAS: remark: not raised: something that is no mask is added to the scores
// NEGATIVE: remark: not raised: scores are scaled by a factor that is not positive
// ROUNDED: remark: not raised: something between queries and output is rounded to bf16

// A softmax that divides by another sum, or subtracts what depends on the token.
// RUN: sed -e 's/ins(%%powers : /ins(%%scores : /' %{layer} | %{raise}=SUM
// RUN: sed -e '/%%powers = /s/#head/#all/; s/ins(%%scores, %%highest : tensor<3x2x2x16xf32>, tensor<3x2x2xf32>)/ins(%%scores, %%products : tensor<3x2x2x16xf32>, tensor<3x2x2x16xf32>)/' %{layer} | %{raise}=SUBTRACTED
// SUM: remark: not raised: the softmax divides by another sum than that of its exponentials over all tokens
// SUBTRACTED: remark: not raised: what is subtracted from the scores depends on the token

// Keys a token behind values, of the cache before it was written, of the values'
// cache; query heads that take turns.
// RUN: sed -e 's/%%here = arith.cmpi eq, %%place, %%p : i32 \/\/ keys/%%one = arith.constant 1 : i32\n%%after = arith.addi %%p, %%one : i32\n%%here = arith.cmpi eq, %%place, %%after : i32/' %{layer} | %{raise}=BEHIND
// RUN: sed -e 's/ins(%%q, %%new_keys/ins(%%q, %%keys/' %{layer} | %{raise}=OLD
// RUN: sed -e 's/ins(%%q, %%new_keys/ins(%%q, %%new_values/' %{layer} | %{raise}=ONE
// RUN: sed -e 's/#keys = affine_map<(b, g, h, s, d) -> (b, g, s, d)>/#keys = affine_map<(b, g, h, s, d) -> (b, h, s, d)>/' %{layer} | %{raise}=TURNS
// BEHIND: remark: not raised: keys are written at arg3[b]+1, values at arg3[b]
// OLD: remark: not raised: no keys of a cache that a token was written to: arg0[b, (h)/2, (h)%2, k] and arg4[b, (h)/2, k, k]
// ONE: remark: not raised: keys and values are of one cache
// TURNS: remark: not raised: query heads do not share KV heads in order: values are arg5[b, (h)%2, k, d]

// An update of one head.
// RUN: sed -e 's/%%here = arith.cmpi eq, %%place, %%p : i32 \/\/ values/%%g = linalg.index 1 : index\n%%c0 = arith.constant 0 : index\n%%first = arith.cmpi eq, %%g, %%c0 : index\n%%now = arith.cmpi eq, %%place, %%p : i32\n%%here = arith.andi %%now, %%first : i1/' %{layer} | %{raise}=PART
// PART: remark: not raised: no attention over a cache that a token was written to; result 1 is

// Caches that are lost, exchanged, or needed elsewhere.
// RUN: sed -e 's/return %%output, %%new_keys/return %%output, %%keys/' %{layer} | %{raise}=LOST
// RUN: sed -e 's/return %%output, %%new_keys, %%new_values/return %%output, %%new_values, %%new_keys/' %{layer} | %{raise}=ORDER
// RUN: sed -e 's/return %%output/%%part = tensor.extract_slice %%new_keys[0, 0, 0, 0] [3, 2, 2, 4] [1, 1, 1, 1] : tensor<3x2x16x4xf16> to tensor<3x2x2x4xf16>\n%%wide = arith.extf %%part : tensor<3x2x2x4xf16> to tensor<3x2x2x4xf32>\n%%sum = arith.addf %%output, %%wide : tensor<3x2x2x4xf32>\nreturn %%sum/' %{layer} | %{raise}=READ
// LOST: remark: not raised: argument 4 is not returned as this attention reads it
// ORDER: remark: not raised: caches are returned in another order than they are taken in
// READ: remark: not raised: something other than attention needs argument 4, which is a cache

// A step that is called: its callers would have to change.
// RUN: sed -e '$r %S/Inputs/call-decode-layer.mlir' %{layer} | %{raise}=CALLED
// CALLED: remark: not raised: it is called, and callers would have to change; inline it first
