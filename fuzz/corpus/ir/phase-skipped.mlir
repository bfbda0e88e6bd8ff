// PASSES: convert-kvrm-to-runtime
!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = f16, layout = transposed_keys>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>
func.func @step(%s: !session {kvrm.argument = #kvrm.argument<session>}) attributes {kvrm.step} {
  %d = kvrm.commit %s : !session -> !desc
  %p = kvrm.positions %d : !desc -> tensor<2xi32>
  return
}
