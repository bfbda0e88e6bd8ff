not MLIR
