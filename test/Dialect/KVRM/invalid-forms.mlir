// RUN: kvrm-opt %s -split-input-file -verify-diagnostics

func.func @f(%x: tensor<64xf32>, %w: tensor<96x64xf16>, %init: tensor<8x96xf32>) {
  // expected-error@+1 {{'kvrm.linear' op input must have a static, positive shape [rows, depth], got 'tensor<64xf32>'}}
  %y = kvrm.linear ins(%x, %w : tensor<64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) {
  ^bb0(%a0: f32):
    kvrm.yield %a0 : f32
  } -> tensor<8x96xf32>
  return
}

// -----

func.func @f(%x: tensor<?x64xf32>, %w: tensor<96x64xf16>, %init: tensor<8x96xf32>) {
  // expected-error@+1 {{'kvrm.linear' op input must have a static, positive shape [rows, depth], got 'tensor<?x64xf32>'}}
  %y = kvrm.linear ins(%x, %w : tensor<?x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) {
  ^bb0(%a0: f32):
    kvrm.yield %a0 : f32
  } -> tensor<8x96xf32>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %w: tensor<96x64x1xf16>, %init: tensor<8x96xf32>) {
  // expected-error@+1 {{'kvrm.linear' op weight must have a static, positive shape [parts * columns, depth], got 'tensor<96x64x1xf16>'}}
  %y = kvrm.linear ins(%x, %w : tensor<8x64xf32>, tensor<96x64x1xf16>) outs(%init : tensor<8x96xf32>) {
  ^bb0(%a0: f32):
    kvrm.yield %a0 : f32
  } -> tensor<8x96xf32>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %w: tensor<96x64xf16>, %init: tensor<0x96xf32>) {
  // expected-error@+1 {{'kvrm.linear' op output must have a static, positive shape [rows, columns], got 'tensor<0x96xf32>'}}
  %y = kvrm.linear ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<0x96xf32>) {
  ^bb0(%a0: f32):
    kvrm.yield %a0 : f32
  } -> tensor<0x96xf32>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %w: tensor<96x64xf16>, %init: tensor<4x96xf32>) {
  // expected-error@+1 {{'kvrm.linear' op input has 8 rows, output 4}}
  %y = kvrm.linear ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<4x96xf32>) {
  ^bb0(%a0: f32):
    kvrm.yield %a0 : f32
  } -> tensor<4x96xf32>
  return
}

// -----

func.func @f(%x: tensor<8x32xf32>, %w: tensor<96x64xf16>, %init: tensor<8x96xf32>) {
  // expected-error@+1 {{'kvrm.linear' op input has 32 columns, weight 64}}
  %y = kvrm.linear ins(%x, %w : tensor<8x32xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) {
  ^bb0(%a0: f32):
    kvrm.yield %a0 : f32
  } -> tensor<8x96xf32>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %w: tensor<96x64xf16>, %init: tensor<8x100xf32>) {
  // expected-error@+1 {{'kvrm.linear' op weight has 96 rows, expected 1 x 100}}
  %y = kvrm.linear ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x100xf32>) {
  ^bb0(%a0: f32):
    kvrm.yield %a0 : f32
  } -> tensor<8x100xf32>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %w: tensor<97x64xf16>, %init: tensor<8x48xf32>) {
  // expected-error@+1 {{'kvrm.linear' op weight has 97 rows, expected 2 x 48}}
  %y = kvrm.linear ins(%x, %w : tensor<8x64xf32>, tensor<97x64xf16>) outs(%init : tensor<8x48xf32>) parts 2 {
  ^bb0(%a0: f32, %a1: f32):
    kvrm.yield %a0 : f32
  } -> tensor<8x48xf32>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %w: tensor<96x64xf16>, %init: tensor<8x96xf32>) {
  // expected-error@+1 {{'kvrm.linear' op attribute 'parts' failed to satisfy constraint: 64-bit signless integer attribute whose value is positive}}
  %y = kvrm.linear ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) parts 0 {
  ^bb0(%a0: f32):
    kvrm.yield %a0 : f32
  } -> tensor<8x96xf32>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %w: tensor<96x64xf16>, %e0: tensor<96xf32>, %e1: tensor<96x8xf32>, %init: tensor<8x96xf32>) {
  // expected-error@+1 {{'kvrm.linear' op extra 1 is 'tensor<96x8xf32>', expected a shape [8, 96] or [96]}}
  %y = kvrm.linear ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) extras(%e0, %e1 : tensor<96xf32>, tensor<96x8xf32>) outs(%init : tensor<8x96xf32>) {
  ^bb0(%a0: f32, %a1: f32, %a2: f32):
    kvrm.yield %a0 : f32
  } -> tensor<8x96xf32>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %w: tensor<96x64xf16>, %e0: tensor<8xf16>, %init: tensor<8x96xf32>) {
  // expected-error@+1 {{'kvrm.linear' op extra 0 is 'tensor<8xf16>', expected a shape [8, 96] or [96]}}
  %y = kvrm.linear ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) extras(%e0 : tensor<8xf16>) outs(%init : tensor<8x96xf32>) {
  ^bb0(%a0: f32, %a1: f16):
    kvrm.yield %a0 : f32
  } -> tensor<8x96xf32>
  return
}

// -----

func.func @f(%x: tensor<8x64xf64>, %w: tensor<96x64xf16>, %init: tensor<8x96xf32>) {
  // expected-error@+1 {{'kvrm.linear' op operand #0 must be}}
  %y = kvrm.linear ins(%x, %w : tensor<8x64xf64>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) {
  ^bb0(%a0: f32):
    kvrm.yield %a0 : f32
  } -> tensor<8x96xf32>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %w: tensor<96x64xi8>, %init: tensor<8x96xf32>) {
  // expected-error@+1 {{'kvrm.linear' op weight is of bytes, and in no block format}}
  %y = kvrm.linear ins(%x, %w : tensor<8x64xf32>, tensor<96x64xi8>) outs(%init : tensor<8x96xf32>) {
  ^bb0(%a0: f32):
    kvrm.yield %a0 : f32
  } -> tensor<8x96xf32>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %w: tensor<96x64xf16>, %e0: tensor<96xi32>, %init: tensor<8x96xf32>) {
  // expected-error@+1 {{'kvrm.linear' op operand #2 must be}}
  %y = kvrm.linear ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) extras(%e0 : tensor<96xi32>) outs(%init : tensor<8x96xf32>) {
  ^bb0(%a0: f32, %a1: i32):
    kvrm.yield %a0 : f32
  } -> tensor<8x96xf32>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %w: tensor<96x64xf16>, %init: tensor<8x96xf64>) {
  // expected-error@+1 {{'kvrm.linear' op operand #2 must be}}
  %y = kvrm.linear ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf64>) {
  ^bb0(%a0: f32):
    kvrm.yield %a0 : f32
  } -> tensor<8x96xf64>
  return
}

// -----

func.func @f(%x: memref<8x64xf32, strided<[128, 2]>>, %w: memref<96x64xf16>, %init: memref<8x96xf32>) {
  // expected-error@+1 {{'kvrm.linear' op input is 'memref<8x64xf32, strided<[128, 2]>>', not contiguous in its last dimension}}
  kvrm.linear ins(%x, %w : memref<8x64xf32, strided<[128, 2]>>, memref<96x64xf16>) outs(%init : memref<8x96xf32>) {
  ^bb0(%a0: f32):
    kvrm.yield %a0 : f32
  }
  return
}

// -----

func.func @f(%x: memref<8x64xf32>, %w: memref<96x64xf16, strided<[1, 96]>>, %init: memref<8x96xf32>) {
  // expected-error@+1 {{'kvrm.linear' op weight is 'memref<96x64xf16, strided<[1, 96]>>', not contiguous in its last dimension}}
  kvrm.linear ins(%x, %w : memref<8x64xf32>, memref<96x64xf16, strided<[1, 96]>>) outs(%init : memref<8x96xf32>) {
  ^bb0(%a0: f32):
    kvrm.yield %a0 : f32
  }
  return
}

// -----

func.func @f(%x: memref<8x64xf32>, %w: memref<96x64xf16>, %e0: memref<96xf32, strided<[?]>>, %init: memref<8x96xf32>) {
  // expected-error@+1 {{'kvrm.linear' op extra 0 is 'memref<96xf32, strided<[?]>>', not contiguous in its last dimension}}
  kvrm.linear ins(%x, %w : memref<8x64xf32>, memref<96x64xf16>) extras(%e0 : memref<96xf32, strided<[?]>>) outs(%init : memref<8x96xf32>) {
  ^bb0(%a0: f32, %a1: f32):
    kvrm.yield %a0 : f32
  }
  return
}

// -----

func.func @f(%x: memref<8x64xf32>, %w: memref<96x64xf16>, %init: memref<8x96xf32, strided<[1, 8]>>) {
  // expected-error@+1 {{'kvrm.linear' op output is 'memref<8x96xf32, strided<[1, 8]>>', not contiguous in its last dimension}}
  kvrm.linear ins(%x, %w : memref<8x64xf32>, memref<96x64xf16>) outs(%init : memref<8x96xf32, strided<[1, 8]>>) {
  ^bb0(%a0: f32):
    kvrm.yield %a0 : f32
  }
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %w: tensor<192x64xf16>, %init: tensor<8x96xf32>) {
  // expected-error@+1 {{'kvrm.linear' op body has 1 arguments, expected 2 for parts and 0 for extras}}
  %y = kvrm.linear ins(%x, %w : tensor<8x64xf32>, tensor<192x64xf16>) outs(%init : tensor<8x96xf32>) parts 2 {
  ^bb0(%a0: f32):
    kvrm.yield %a0 : f32
  } -> tensor<8x96xf32>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %w: tensor<96x64xf16>, %init: tensor<8x96xf16>) {
  // expected-error@+1 {{'kvrm.linear' op body takes ('f16'), expected ('f32'): f32 for each part, then the element of each extra}}
  %y = kvrm.linear ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf16>) {
  ^bb0(%a0: f16):
    kvrm.yield %a0 : f16
  } -> tensor<8x96xf16>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %w: tensor<96x64xf16>, %e0: tensor<96xbf16>, %init: tensor<8x96xf32>) {
  // expected-error@+1 {{'kvrm.linear' op body takes ('f32', 'f32'), expected ('f32', 'bf16'): f32 for each part, then the element of each extra}}
  %y = kvrm.linear ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) extras(%e0 : tensor<96xbf16>) outs(%init : tensor<8x96xf32>) {
  ^bb0(%a0: f32, %a1: f32):
    kvrm.yield %a0 : f32
  } -> tensor<8x96xf32>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %w: tensor<96x64xf16>, %init: tensor<8x96xf16>) {
  // expected-error@+1 {{'kvrm.linear' op body yields 'f32', output is of 'f16'}}
  %y = kvrm.linear ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf16>) {
  ^bb0(%a0: f32):
    kvrm.yield %a0 : f32
  } -> tensor<8x96xf16>
  return
}

// -----

func.func private @g(f32) -> f32
func.func @f(%x: tensor<8x64xf32>, %w: tensor<96x64xf16>, %init: tensor<8x96xf32>) {
  %y = kvrm.linear ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) {
  ^bb0(%a0: f32):
    // expected-error@+1 {{'func.call' op stands in the body of a kvrm.linear, which has pure ops of arith and math on scalars alone}}
    %v = func.call @g(%a0) : (f32) -> f32
    kvrm.yield %v : f32
  } -> tensor<8x96xf32>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %w: tensor<96x64xf16>, %init: tensor<8x96xf32>) {
  %y = kvrm.linear ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) {
  ^bb0(%a0: f32):
    %true = arith.constant true
    // expected-error@+1 {{'scf.if' op stands in the body of a kvrm.linear, which has pure ops of arith and math on scalars alone}}
    %v = scf.if %true -> f32 {
      scf.yield %a0 : f32
    } else {
      scf.yield %a0 : f32
    }
    kvrm.yield %v : f32
  } -> tensor<8x96xf32>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %w: tensor<96x64xf16>, %init: tensor<8x96xf32>) {
  %y = kvrm.linear ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) {
  ^bb0(%a0: f32):
    // expected-error@+1 {{'vector.broadcast' op stands in the body of a kvrm.linear, which has pure ops of arith and math on scalars alone}}
    %v = vector.broadcast %a0 : f32 to vector<4xf32>
    kvrm.yield %a0 : f32
  } -> tensor<8x96xf32>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %w: tensor<96x64xf16>, %init: tensor<8x96xf32>) {
  %y = kvrm.linear ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) {
  ^bb0(%a0: f32):
    // expected-error@+1 {{'arith.constant' op stands in the body of a kvrm.linear, which has pure ops of arith and math on scalars alone}}
    %v = arith.constant dense<0.0> : vector<4xf32>
    kvrm.yield %a0 : f32
  } -> tensor<8x96xf32>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %w: tensor<96x64xf16>, %init: tensor<8x96xf32>) {
  %c = arith.constant 1.0 : f32
  // expected-note@+1 {{required by region isolation constraints}}
  %y = kvrm.linear ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) {
  ^bb0(%a0: f32):
    // expected-error@+1 {{using value defined outside the region}}
    %v = arith.addf %a0, %c : f32
    kvrm.yield %v : f32
  } -> tensor<8x96xf32>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %w: tensor<96x64xf16>, %init: tensor<8x96xf32>) {
  %y = kvrm.linear ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) {
  ^bb0(%a0: f64):
    // expected-error@+1 {{'kvrm.yield' op operand #0 must be}}
    kvrm.yield %a0 : f64
  } -> tensor<8x96xf32>
  return
}

// -----

func.func @f(%x: f32) -> f32 {
  // expected-error@+1 {{'kvrm.yield' op expects parent op 'kvrm.linear'}}
  kvrm.yield %x : f32
}

// -----

func.func @f(%x: tensor<8x64xf32>, %w: tensor<96x64xf16>, %init: tensor<8x96xf32>) {
  // expected-error@+1 {{'kvrm.linear' op body must end in kvrm.yield}}
  %y = kvrm.linear ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) {
  ^bb0(%a0: f32):
    llvm.unreachable
  } -> tensor<8x96xf32>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %w: tensor<96x64xf16>, %init: tensor<8x96xf32>) {
  // expected-error@+1 {{'kvrm.linear' op expected the number of tensor results (0) to be equal to the number of output tensors (1)}}
  kvrm.linear ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) {
  ^bb0(%a0: f32):
    kvrm.yield %a0 : f32
  }
  return
}

// -----

func.func @f(%x: tensor<8x8x64xf32>, %g: tensor<64xf32>, %init: tensor<8x64xf32>) {
  // expected-error@+1 {{'kvrm.rms_norm' op input must have a static, positive shape [rows, columns], got 'tensor<8x8x64xf32>'}}
  %y = kvrm.rms_norm ins(%x, %g : tensor<8x8x64xf32>, tensor<64xf32>) outs(%init : tensor<8x64xf32>) epsilon 1.0e-5 -> tensor<8x64xf32>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %g: tensor<8x64xf32>, %init: tensor<8x64xf32>) {
  // expected-error@+1 {{'kvrm.rms_norm' op gain must have a static, positive shape [columns], got 'tensor<8x64xf32>'}}
  %y = kvrm.rms_norm ins(%x, %g : tensor<8x64xf32>, tensor<8x64xf32>) outs(%init : tensor<8x64xf32>) epsilon 1.0e-5 -> tensor<8x64xf32>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %g: tensor<64xf32>, %init: tensor<8x?xf32>) {
  // expected-error@+1 {{'kvrm.rms_norm' op output must have a static, positive shape [rows, columns], got 'tensor<8x?xf32>'}}
  %y = kvrm.rms_norm ins(%x, %g : tensor<8x64xf32>, tensor<64xf32>) outs(%init : tensor<8x?xf32>) epsilon 1.0e-5 -> tensor<8x?xf32>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %g: tensor<64xf32>, %init: tensor<4x64xf32>) {
  // expected-error@+1 {{'kvrm.rms_norm' op input is 'tensor<8x64xf32>' and output 'tensor<4x64xf32>', which differ in shape}}
  %y = kvrm.rms_norm ins(%x, %g : tensor<8x64xf32>, tensor<64xf32>) outs(%init : tensor<4x64xf32>) epsilon 1.0e-5 -> tensor<4x64xf32>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %g: tensor<32xf32>, %init: tensor<8x64xf32>) {
  // expected-error@+1 {{'kvrm.rms_norm' op input has 64 columns, gain 32}}
  %y = kvrm.rms_norm ins(%x, %g : tensor<8x64xf32>, tensor<32xf32>) outs(%init : tensor<8x64xf32>) epsilon 1.0e-5 -> tensor<8x64xf32>
  return
}

// -----

func.func @f(%x: tensor<8x64xf16>, %g: tensor<64xf32>, %init: tensor<8x64xf32>) {
  // expected-error@+1 {{'kvrm.rms_norm' op operand #0 must be}}
  %y = kvrm.rms_norm ins(%x, %g : tensor<8x64xf16>, tensor<64xf32>) outs(%init : tensor<8x64xf32>) epsilon 1.0e-5 -> tensor<8x64xf32>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %g: tensor<64xf16>, %init: tensor<8x64xf32>) {
  // expected-error@+1 {{'kvrm.rms_norm' op operand #1 must be}}
  %y = kvrm.rms_norm ins(%x, %g : tensor<8x64xf32>, tensor<64xf16>) outs(%init : tensor<8x64xf32>) epsilon 1.0e-5 -> tensor<8x64xf32>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %g: tensor<64xf32>, %init: tensor<8x64xi32>) {
  // expected-error@+1 {{'kvrm.rms_norm' op operand #2 must be}}
  %y = kvrm.rms_norm ins(%x, %g : tensor<8x64xf32>, tensor<64xf32>) outs(%init : tensor<8x64xi32>) epsilon 1.0e-5 -> tensor<8x64xi32>
  return
}

// -----

func.func @f(%x: memref<8x64xf32, strided<[128, 2]>>, %g: memref<64xf32>, %init: memref<8x64xf32>) {
  // expected-error@+1 {{'kvrm.rms_norm' op input is 'memref<8x64xf32, strided<[128, 2]>>', not contiguous in its last dimension}}
  kvrm.rms_norm ins(%x, %g : memref<8x64xf32, strided<[128, 2]>>, memref<64xf32>) outs(%init : memref<8x64xf32>) epsilon 1.0e-5
  return
}

// -----

func.func @f(%x: memref<8x64xf32>, %g: memref<64xf32, strided<[2]>>, %init: memref<8x64xf32>) {
  // expected-error@+1 {{'kvrm.rms_norm' op gain is 'memref<64xf32, strided<[2]>>', not contiguous in its last dimension}}
  kvrm.rms_norm ins(%x, %g : memref<8x64xf32>, memref<64xf32, strided<[2]>>) outs(%init : memref<8x64xf32>) epsilon 1.0e-5
  return
}

// -----

func.func @f(%x: memref<8x64xf32>, %g: memref<64xf32>, %init: memref<8x64xf16, strided<[1, 8]>>) {
  // expected-error@+1 {{'kvrm.rms_norm' op output is 'memref<8x64xf16, strided<[1, 8]>>', not contiguous in its last dimension}}
  kvrm.rms_norm ins(%x, %g : memref<8x64xf32>, memref<64xf32>) outs(%init : memref<8x64xf16, strided<[1, 8]>>) epsilon 1.0e-5
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %g: tensor<64xf32>, %init: tensor<8x64xf32>) {
  // expected-error@+1 {{'kvrm.rms_norm' op epsilon must be positive and finite}}
  %y = kvrm.rms_norm ins(%x, %g : tensor<8x64xf32>, tensor<64xf32>) outs(%init : tensor<8x64xf32>) epsilon 0.0 -> tensor<8x64xf32>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %g: tensor<64xf32>, %init: tensor<8x64xf32>) {
  // expected-error@+1 {{'kvrm.rms_norm' op epsilon must be positive and finite}}
  %y = kvrm.rms_norm ins(%x, %g : tensor<8x64xf32>, tensor<64xf32>) outs(%init : tensor<8x64xf32>) epsilon -1.0e-5 -> tensor<8x64xf32>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %g: tensor<64xf32>, %init: tensor<8x64xf32>) {
  // expected-error@+1 {{'kvrm.rms_norm' op epsilon must be positive and finite}}
  %y = kvrm.rms_norm ins(%x, %g : tensor<8x64xf32>, tensor<64xf32>) outs(%init : tensor<8x64xf32>) epsilon 0x7F800000 -> tensor<8x64xf32>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %w: tensor<4611686018427387904x64xf16>, %init: tensor<8x1xf32>) {
  // expected-error@+1 {{'kvrm.linear' op body has 1 arguments, expected 4611686018427387904 for parts and 0 for extras}}
  %y = kvrm.linear ins(%x, %w : tensor<8x64xf32>, tensor<4611686018427387904x64xf16>) outs(%init : tensor<8x1xf32>) parts 4611686018427387904 {
  ^bb0(%a0: f32):
    kvrm.yield %a0 : f32
  } -> tensor<8x1xf32>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %w: tensor<128x32xf16>, %g: tensor<64xf32>, %c: tensor<8x16xf32>, %s: tensor<8x16xf32>, %q: tensor<8x64xf16>, %k: tensor<8x32xf16>, %v: tensor<8x32xf16>) {
  // expected-error@+1 {{'kvrm.qkv_projection' op input has 64 columns, weight 32}}
  %r:3 = kvrm.qkv_projection ins(%x, %w : tensor<8x64xf32>, tensor<128x32xf16>) norm(%g : tensor<64xf32>) epsilon 1.0e-5 rotation(%c, %s : tensor<8x16xf32>, tensor<8x16xf32>) outs(%q, %k, %v : tensor<8x64xf16>, tensor<8x32xf16>, tensor<8x32xf16>) -> tensor<8x64xf16>, tensor<8x32xf16>, tensor<8x32xf16>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %w: tensor<128x64xf16>, %g: tensor<32xf32>, %c: tensor<8x16xf32>, %s: tensor<8x16xf32>, %q: tensor<8x64xf16>, %k: tensor<8x32xf16>, %v: tensor<8x32xf16>) {
  // expected-error@+1 {{'kvrm.qkv_projection' op input has 64 columns, gain 32}}
  %r:3 = kvrm.qkv_projection ins(%x, %w : tensor<8x64xf32>, tensor<128x64xf16>) norm(%g : tensor<32xf32>) epsilon 1.0e-5 rotation(%c, %s : tensor<8x16xf32>, tensor<8x16xf32>) outs(%q, %k, %v : tensor<8x64xf16>, tensor<8x32xf16>, tensor<8x32xf16>) -> tensor<8x64xf16>, tensor<8x32xf16>, tensor<8x32xf16>
  return
}

// -----

func.func @f(%x: tensor<8x64xf16>, %w: tensor<128x64xf16>, %g: tensor<64xf32>, %c: tensor<8x16xf32>, %s: tensor<8x16xf32>, %q: tensor<8x64xf16>, %k: tensor<8x32xf16>, %v: tensor<8x32xf16>) {
  // expected-error@+1 {{'kvrm.qkv_projection' op input is of 'f16', and a norm's is f32}}
  %r:3 = kvrm.qkv_projection ins(%x, %w : tensor<8x64xf16>, tensor<128x64xf16>) norm(%g : tensor<64xf32>) epsilon 1.0e-5 rotation(%c, %s : tensor<8x16xf32>, tensor<8x16xf32>) outs(%q, %k, %v : tensor<8x64xf16>, tensor<8x32xf16>, tensor<8x32xf16>) -> tensor<8x64xf16>, tensor<8x32xf16>, tensor<8x32xf16>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %w: tensor<128x64xf16>, %g: tensor<64xf32>, %c: tensor<8x16xf32>, %s: tensor<8x16xf32>, %q: tensor<8x64xf16>, %k: tensor<8x32xf16>, %v: tensor<8x32xf16>) {
  // expected-error@+1 {{'kvrm.qkv_projection' op epsilon must be positive and finite}}
  %r:3 = kvrm.qkv_projection ins(%x, %w : tensor<8x64xf32>, tensor<128x64xf16>) norm(%g : tensor<64xf32>) epsilon 0.0 rotation(%c, %s : tensor<8x16xf32>, tensor<8x16xf32>) outs(%q, %k, %v : tensor<8x64xf16>, tensor<8x32xf16>, tensor<8x32xf16>) -> tensor<8x64xf16>, tensor<8x32xf16>, tensor<8x32xf16>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %w: tensor<128x64xf16>, %g: tensor<64xf32>, %c: tensor<8x16xf32>, %s: tensor<8x8xf32>, %q: tensor<8x64xf16>, %k: tensor<8x32xf16>, %v: tensor<8x32xf16>) {
  // expected-error@+1 {{'kvrm.qkv_projection' op cosines and sines must be 8 rows of one length, got 'tensor<8x16xf32>' and 'tensor<8x8xf32>'}}
  %r:3 = kvrm.qkv_projection ins(%x, %w : tensor<8x64xf32>, tensor<128x64xf16>) norm(%g : tensor<64xf32>) epsilon 1.0e-5 rotation(%c, %s : tensor<8x16xf32>, tensor<8x8xf32>) outs(%q, %k, %v : tensor<8x64xf16>, tensor<8x32xf16>, tensor<8x32xf16>) -> tensor<8x64xf16>, tensor<8x32xf16>, tensor<8x32xf16>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %w: tensor<128x64xf16>, %g: tensor<64xf32>, %c: tensor<1x16xf32>, %s: tensor<1x16xf32>, %q: tensor<8x64xf16>, %k: tensor<8x32xf16>, %v: tensor<8x32xf16>) {
  // expected-error@+1 {{'kvrm.qkv_projection' op cosines and sines must be 8 rows of one length, got 'tensor<1x16xf32>' and 'tensor<1x16xf32>'}}
  %r:3 = kvrm.qkv_projection ins(%x, %w : tensor<8x64xf32>, tensor<128x64xf16>) norm(%g : tensor<64xf32>) epsilon 1.0e-5 rotation(%c, %s : tensor<1x16xf32>, tensor<1x16xf32>) outs(%q, %k, %v : tensor<8x64xf16>, tensor<8x32xf16>, tensor<8x32xf16>) -> tensor<8x64xf16>, tensor<8x32xf16>, tensor<8x32xf16>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %w: tensor<128x64xf16>, %g: tensor<64xf32>, %c: tensor<8x16xf32>, %s: tensor<8x16xf32>, %q: tensor<8x64xf16>, %k: tensor<4x32xf16>, %v: tensor<8x32xf16>) {
  // expected-error@+1 {{'kvrm.qkv_projection' op input has 8 rows, key 4}}
  %r:3 = kvrm.qkv_projection ins(%x, %w : tensor<8x64xf32>, tensor<128x64xf16>) norm(%g : tensor<64xf32>) epsilon 1.0e-5 rotation(%c, %s : tensor<8x16xf32>, tensor<8x16xf32>) outs(%q, %k, %v : tensor<8x64xf16>, tensor<4x32xf16>, tensor<8x32xf16>) -> tensor<8x64xf16>, tensor<4x32xf16>, tensor<8x32xf16>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %w: tensor<128x64xf16>, %g: tensor<64xf32>, %c: tensor<8x16xf32>, %s: tensor<8x16xf32>, %q: tensor<8x48xf16>, %k: tensor<8x32xf16>, %v: tensor<8x32xf16>) {
  // expected-error@+1 {{'kvrm.qkv_projection' op query has 48 columns, not whole heads of 32}}
  %r:3 = kvrm.qkv_projection ins(%x, %w : tensor<8x64xf32>, tensor<128x64xf16>) norm(%g : tensor<64xf32>) epsilon 1.0e-5 rotation(%c, %s : tensor<8x16xf32>, tensor<8x16xf32>) outs(%q, %k, %v : tensor<8x48xf16>, tensor<8x32xf16>, tensor<8x32xf16>) -> tensor<8x48xf16>, tensor<8x32xf16>, tensor<8x32xf16>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %w: tensor<128x64xf16>, %g: tensor<64xf32>, %c: tensor<8x16xf32>, %s: tensor<8x16xf32>, %q: tensor<8x64xf16>, %k: tensor<8x32xf16>, %v: tensor<8x32xf32>) {
  // expected-error@+1 {{'kvrm.qkv_projection' op value is of 'f32', query of 'f16'}}
  %r:3 = kvrm.qkv_projection ins(%x, %w : tensor<8x64xf32>, tensor<128x64xf16>) norm(%g : tensor<64xf32>) epsilon 1.0e-5 rotation(%c, %s : tensor<8x16xf32>, tensor<8x16xf32>) outs(%q, %k, %v : tensor<8x64xf16>, tensor<8x32xf16>, tensor<8x32xf32>) -> tensor<8x64xf16>, tensor<8x32xf16>, tensor<8x32xf32>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %w: tensor<128x64xf16>, %b: tensor<64xf32>, %c: tensor<8x16xf32>, %s: tensor<8x16xf32>, %q: tensor<8x64xf16>, %k: tensor<8x32xf16>, %v: tensor<8x32xf16>) {
  // expected-error@+1 {{'kvrm.qkv_projection' op weight has 128 rows, bias 64}}
  %r:3 = kvrm.qkv_projection ins(%x, %w : tensor<8x64xf32>, tensor<128x64xf16>) bias(%b : tensor<64xf32>) rotation(%c, %s : tensor<8x16xf32>, tensor<8x16xf32>) outs(%q, %k, %v : tensor<8x64xf16>, tensor<8x32xf16>, tensor<8x32xf16>) -> tensor<8x64xf16>, tensor<8x32xf16>, tensor<8x32xf16>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %w: tensor<128x64xf16>, %g: tensor<64xf32>, %c: tensor<8x16xf32>, %s: tensor<8x16xf32>, %q: tensor<8x64xf16>, %k: tensor<8x32xf16>, %v: tensor<8x64xf16>) {
  // expected-error@+1 {{'kvrm.qkv_projection' op key is 'tensor<8x32xf16>' and value 'tensor<8x64xf16>', which differ in shape}}
  %r:3 = kvrm.qkv_projection ins(%x, %w : tensor<8x64xf32>, tensor<128x64xf16>) norm(%g : tensor<64xf32>) epsilon 1.0e-5 rotation(%c, %s : tensor<8x16xf32>, tensor<8x16xf32>) outs(%q, %k, %v : tensor<8x64xf16>, tensor<8x32xf16>, tensor<8x64xf16>) -> tensor<8x64xf16>, tensor<8x32xf16>, tensor<8x64xf16>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %w: tensor<128x64xf16>, %g: tensor<64xf32>, %c: tensor<8x16xf32>, %s: tensor<8x16xf32>, %q: tensor<8x96xf16>, %k: tensor<8x32xf16>, %v: tensor<8x32xf16>) {
  // expected-error@+1 {{'kvrm.qkv_projection' op weight has 128 rows, expected those of query, key and value, 160}}
  %r:3 = kvrm.qkv_projection ins(%x, %w : tensor<8x64xf32>, tensor<128x64xf16>) norm(%g : tensor<64xf32>) epsilon 1.0e-5 rotation(%c, %s : tensor<8x16xf32>, tensor<8x16xf32>) outs(%q, %k, %v : tensor<8x96xf16>, tensor<8x32xf16>, tensor<8x32xf16>) -> tensor<8x96xf16>, tensor<8x32xf16>, tensor<8x32xf16>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %w: tensor<128x64xf16>, %g: tensor<64xf32>, %c: tensor<8x16xf32>, %s: tensor<8x16xf32>, %q: tensor<8x64xf16>, %k: tensor<8x32xf16>, %v: tensor<8x32xf16>) {
  // expected-error@+1 {{'kvrm.qkv_projection' op must return what it writes: query, key and value}}
  %r:3 = kvrm.qkv_projection ins(%x, %w : tensor<8x64xf32>, tensor<128x64xf16>) norm(%g : tensor<64xf32>) epsilon 1.0e-5 rotation(%c, %s : tensor<8x16xf32>, tensor<8x16xf32>) outs(%q, %k, %v : tensor<8x64xf16>, tensor<8x32xf16>, tensor<8x32xf16>) -> tensor<8x64xf16>, tensor<8x32xf16>, tensor<8x64xf16>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %w: tensor<96x64xf16>, %g: tensor<64xf32>, %init: tensor<8x96xf32>) {
  // expected-error@+1 {{'kvrm.linear' op has one of gain and epsilon, and a norm is both}}
  %y = "kvrm.linear"(%x, %w, %g, %init) <{operandSegmentSizes = array<i32: 1, 1, 1, 0, 1>, parts = 1 : i64}> ({
  ^bb0(%a0: f32):
    kvrm.yield %a0 : f32
  }) : (tensor<8x64xf32>, tensor<96x64xf16>, tensor<64xf32>, tensor<8x96xf32>) -> tensor<8x96xf32>
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>, %w: tensor<96x64xf16>, %init: tensor<8x96xf32>) {
  // expected-error@+1 {{'kvrm.linear' op has one of gain and epsilon, and a norm is both}}
  %y = "kvrm.linear"(%x, %w, %init) <{epsilon = 1.0 : f32, operandSegmentSizes = array<i32: 1, 1, 0, 0, 1>, parts = 1 : i64}> ({
  ^bb0(%a0: f32):
    kvrm.yield %a0 : f32
  }) : (tensor<8x64xf32>, tensor<96x64xf16>, tensor<8x96xf32>) -> tensor<8x96xf32>
  return
}
