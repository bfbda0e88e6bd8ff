// RUN: kvrm-opt %s -split-input-file -verify-diagnostics

// Limits are those of abi.h: no type may promise what the runtime cannot hold.

// expected-error@+1 {{layers is 0, outside 1..1024}}
func.func private @f(!kvrm.pool<layers = 0, kv_heads = 1, head_dim = 64, page = 16, element = f16, layout = token_major>)

// -----

// expected-error@+1 {{layers is 1025, outside 1..1024}}
func.func private @f(!kvrm.pool<layers = 1025, kv_heads = 1, head_dim = 64, page = 16, element = f16, layout = token_major>)

// -----

// expected-error@+1 {{kv_heads is 0, outside 1..256}}
func.func private @f(!kvrm.pool<layers = 1, kv_heads = 0, head_dim = 64, page = 16, element = f16, layout = token_major>)

// -----

// expected-error@+1 {{kv_heads is 257, outside 1..256}}
func.func private @f(!kvrm.pool<layers = 1, kv_heads = 257, head_dim = 64, page = 16, element = f16, layout = token_major>)

// -----

// expected-error@+1 {{head_dim is 0, outside 1..512}}
func.func private @f(!kvrm.pool<layers = 1, kv_heads = 1, head_dim = 0, page = 16, element = f16, layout = token_major>)

// -----

// expected-error@+1 {{head_dim is 513, outside 1..512}}
func.func private @f(!kvrm.pool<layers = 1, kv_heads = 1, head_dim = 513, page = 16, element = f16, layout = token_major>)

// -----

// expected-error@+1 {{page is 0, outside 1..256}}
func.func private @f(!kvrm.pool<layers = 1, kv_heads = 1, head_dim = 64, page = 0, element = f16, layout = token_major>)

// -----

// expected-error@+1 {{page is 257, outside 1..256}}
func.func private @f(!kvrm.pool<layers = 1, kv_heads = 1, head_dim = 64, page = 257, element = f16, layout = token_major>)

// -----

// expected-error@+1 {{layers is -1, outside 1..1024}}
func.func private @f(!kvrm.pool<layers = -1, kv_heads = 1, head_dim = 64, page = 16, element = f16, layout = token_major>)

// -----

// expected-error@+1 {{page is 24, not a power of two}}
func.func private @f(!kvrm.pool<layers = 1, kv_heads = 1, head_dim = 64, page = 24, element = f16, layout = token_major>)

// -----

// expected-error@+1 {{element is 'f32', none of f16, bf16, f8E4M3FN and i8}}
func.func private @f(!kvrm.pool<layers = 1, kv_heads = 1, head_dim = 64, page = 16, element = f32, layout = token_major>)

// -----

// Of the forms of 8 bits a pool takes OCP's e4m3, and integers without a sign of
// their type's own.

// expected-error@+1 {{element is 'f8E4M3', none of f16, bf16, f8E4M3FN and i8}}
func.func private @f(!kvrm.pool<layers = 1, kv_heads = 1, head_dim = 64, page = 16, element = f8E4M3, layout = token_major>)

// -----

// expected-error@+1 {{element is 'f8E5M2', none of f16, bf16, f8E4M3FN and i8}}
func.func private @f(!kvrm.pool<layers = 1, kv_heads = 1, head_dim = 64, page = 16, element = f8E5M2, layout = token_major>)

// -----

// expected-error@+1 {{element is 'si8', none of f16, bf16, f8E4M3FN and i8}}
func.func private @f(!kvrm.pool<layers = 1, kv_heads = 1, head_dim = 64, page = 16, element = si8, layout = token_major>)

// -----

// expected-error@+1 {{head_dim is 80; a swizzled pool takes 64, 96, 128 and 256}}
func.func private @f(!kvrm.pool<layers = 1, kv_heads = 1, head_dim = 80, page = 16, element = f16, layout = swizzled>)

// -----

// expected-error@+2 {{expected ::mlir::kvrm::Layout to be one of: token_major, transposed_keys, swizzled}}
// expected-error@+1 {{failed to parse KVRM_PoolType parameter 'layout'}}
func.func private @f(!kvrm.pool<layers = 1, kv_heads = 1, head_dim = 64, page = 16, element = f16, layout = row_major>)

// -----

// expected-error@+1 {{expected 'kv_heads'}}
func.func private @f(!kvrm.pool<layers = 1, head_dim = 64, kv_heads = 1, page = 16, element = f16, layout = token_major>)

// -----

// expected-error@+1 {{slots is 0, outside 1..1024}}
func.func private @f(!kvrm.session<slots = 0, pages = 1, pool = <layers = 1, kv_heads = 1, head_dim = 64, page = 16, element = f16, layout = token_major>>)

// -----

// expected-error@+1 {{slots is 1025, outside 1..1024}}
func.func private @f(!kvrm.session<slots = 1025, pages = 1, pool = <layers = 1, kv_heads = 1, head_dim = 64, page = 16, element = f16, layout = token_major>>)

// -----

// expected-error@+1 {{pages is 0, outside 1..65536}}
func.func private @f(!kvrm.session<slots = 1, pages = 0, pool = <layers = 1, kv_heads = 1, head_dim = 64, page = 16, element = f16, layout = token_major>>)

// -----

// expected-error@+1 {{pages is 65537, outside 1..65536}}
func.func private @f(!kvrm.session<slots = 1, pages = 65537, pool = <layers = 1, kv_heads = 1, head_dim = 64, page = 16, element = f16, layout = token_major>>)

// -----

// The limits of the pool hold inside a session too.
// expected-error@+2 {{failed to parse KVRM_SessionType parameter 'pool'}}
// expected-error@+1 {{page is 24, not a power of two}}
func.func private @f(!kvrm.session<slots = 1, pages = 1, pool = <layers = 1, kv_heads = 1, head_dim = 64, page = 24, element = f16, layout = token_major>>)

// -----

// expected-error@+2 {{expected '<'}}
// expected-error@+1 {{failed to parse KVRM_SessionType parameter 'pool'}}
func.func private @f(!kvrm.session<slots = 1, pages = 1, pool = f16>)

// -----

// expected-error@+1 {{far_history window of 40 is not whole pages of 16}}
func.func private @f(!kvrm.session<slots = 1, pages = 9, pool = <layers = 1, kv_heads = 1, head_dim = 64, page = 16, element = f16, layout = token_major>, far_history = <window = 40>>)

// -----

// expected-error@+1 {{far_history entries of 8 is not whole pages of 16}}
func.func private @f(!kvrm.session<slots = 1, pages = 9, pool = <layers = 1, kv_heads = 1, head_dim = 64, page = 16, element = f16, layout = token_major>, far_history = <window = 32, entries = 8>>)

// -----

// expected-error@+1 {{pages is 6, which leaves no room for new tokens beside a far_history of 32 + 64}}
func.func private @f(!kvrm.session<slots = 1, pages = 6, pool = <layers = 1, kv_heads = 1, head_dim = 64, page = 16, element = f16, layout = token_major>, far_history = <window = 32, entries = 64>>)

// -----

// expected-error@+1 {{rows is 0, outside 1..1024}}
func.func private @f(!kvrm.descriptor<rows = 0, queries = 1, pages = 1>)

// -----

// expected-error@+1 {{rows is 1025, outside 1..1024}}
func.func private @f(!kvrm.descriptor<rows = 1025, queries = 1, pages = 1>)

// -----

// expected-error@+1 {{queries is 0, outside 1..4096}}
func.func private @f(!kvrm.descriptor<rows = 1, queries = 0, pages = 1>)

// -----

// expected-error@+1 {{queries is 4097, outside 1..4096}}
func.func private @f(!kvrm.descriptor<rows = 1, queries = 4097, pages = 1>)

// -----

// expected-error@+1 {{pages is 0, outside 1..65536}}
func.func private @f(!kvrm.descriptor<rows = 1, queries = 1, pages = 0>)

// -----

// expected-error@+1 {{pages is 65537, outside 1..65536}}
func.func private @f(!kvrm.descriptor<rows = 1, queries = 1, pages = 65537>)

// -----

// expected-error@+1 {{element is 'f64', none of f16, bf16, f8E4M3FN, i8 and f32}}
func.func private @f(!kvrm.fragment<3x64xf64>)

// -----

// expected-error@+1 {{shape 0x64 is not positive}}
func.func private @f(!kvrm.fragment<0x64xf32>)

// -----

// expected-error@+1 {{shape 3x0 is not positive}}
func.func private @f(!kvrm.fragment<3x0xf32>)

// -----

// expected-error@+1 {{a fragment has rows and columns}}
func.func private @f(!kvrm.fragment<64xf32>)

// -----

// expected-error@+1 {{a fragment has rows and columns}}
func.func private @f(!kvrm.fragment<2x3x64xf32>)

// -----

// expected-error@+1 {{expected static shape}}
func.func private @f(!kvrm.fragment<?x64xf32>)

// -----

// expected-error@+1 {{shape 3x0 is not positive}}
func.func private @f(!kvrm.softmax<3x0>)

// -----

// expected-error@+1 {{padded histories never collapse; far_history is of others}}
func.func private @f(!kvrm.session<slots = 1, pages = 9, pool = <layers = 1, kv_heads = 1, head_dim = 64, page = 16, element = f16, layout = token_major>, far_history = <window = 32>, padded>)

// -----

// expected-error@+1 {{a softmax state has rows and columns}}
func.func private @f(!kvrm.softmax<3>)

// -----

// expected-error@+1 {{a softmax state has rows and columns}}
func.func private @f(!kvrm.softmax<3x64x2>)

// -----

// expected-error@+1 {{unknown  type `page` in dialect `kvrm`}}
func.func private @f(!kvrm.page)
