
func.func private @caller(%q: tensor<3x2x2x4xf32>, %k: tensor<3x2x4xf32>, %p: tensor<3xi32>, %c: tensor<3x2x16x4xf16>) {
  %results:3 = call @step(%q, %k, %k, %p, %c, %c)
      : (tensor<3x2x2x4xf32>, tensor<3x2x4xf32>, tensor<3x2x4xf32>, tensor<3xi32>, tensor<3x2x16x4xf16>, tensor<3x2x16x4xf16>)
      -> (tensor<3x2x2x4xf32>, tensor<3x2x16x4xf16>, tensor<3x2x16x4xf16>)
  return
}
