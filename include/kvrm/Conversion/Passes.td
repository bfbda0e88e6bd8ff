#ifndef KVRM_CONVERSION_PASSES_TD
#define KVRM_CONVERSION_PASSES_TD
include "mlir/Pass/PassBase.td"
#endif
