#include "kvrm/Frontend/DecoderBuilder.h"
#include "mlir/IR/MLIRContext.h"
#include "mlir/IR/Verifier.h"
#include "llvm/Support/raw_ostream.h"
int main(int argc, char **argv) {
  mlir::MLIRContext ctx(mlir::MLIRContext::Threading::DISABLED);
  kvrm::DecoderConfig c;
  kvrm::DecoderShape s;
  if (argc > 1) {
    auto m = kvrm::openGGUF(argv[1]);
    if (!m) { llvm::errs() << toString(m.takeError()) << "\n"; return 1; }
    c = m->config;
  } else {
    kvrm::SynthOptions o; o.headDim = 64; o.hidden = 256;o.feedForward=512;
    c = kvrm::synthModel(o)->config; s.capacity = 256; s.slots = 4;
  }
  auto m = kvrm::buildDecoder(ctx, c, s);
  if (!m) { llvm::errs() << toString(m.takeError()) << "\n"; return 1; }
  if (failed(mlir::verify(**m))) return 1;
  (*m)->print(llvm::outs());
}
