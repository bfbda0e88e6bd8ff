//===- kvrm-opt.cpp - Run passes on decoder IR ----------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/InitAll.h"
#include "kvrm/runtime/support/ReplaceFile.h"
#include "kvrm/runtime/support/StandardStreams.h"

#include "mlir/InitAllDialects.h"
#include "mlir/InitAllPasses.h"
#include "mlir/Tools/mlir-opt/MlirOptMain.h"
#include "llvm/Support/CommandLine.h"
#include "llvm/Support/raw_ostream.h"

using kvrm::Status;

static int fail(const Status &status) {
  llvm::errs() << "kvrm-opt: error: " << status.message() << "\n";
  return 1;
}

/// Runs as mlir-opt does, but that an output appears when it is whole.
static int runToFile(int argc, char **argv, const std::string &input,
                     const std::string &output,
                     mlir::DialectRegistry &registry) {
  kvrm::Expected<kvrm::UnfinishedFile> file =
      kvrm::UnfinishedFile::create(output);
  if (!file)
    return fail(file.status());
  if (mlir::failed(
          mlir::MlirOptMain(argc, argv, input, file->writtenPath(), registry)))
    return 1;
  Status written = file->commit();
  return written.isOk() ? 0 : fail(written);
}

int main(int argc, char **argv) {
  kvrm::openStandardStreams();
  kvrm::removeUnfinishedAtEnd();
  llvm::cl::AddExtraVersionPrinter(
      [](llvm::raw_ostream &os) { os << "kvrm-opt " KVRM_VERSION "\n"; });
  mlir::registerAllPasses();
  mlir::kvrm::registerAllKVRMPasses();
  mlir::DialectRegistry registry;
  mlir::registerAllDialects(registry);
  mlir::kvrm::registerAllKVRMDialects(registry);
  auto [input, output] = mlir::registerAndParseCLIOptions(
      argc, argv, "kvrm optimizer driver\n", registry);
  if (Status status = kvrm::checkOutput(output, {{input}}); !status.isOk())
    return fail(status);
  if (output == "-")
    return mlir::asMainReturnCode(
        mlir::MlirOptMain(argc, argv, input, output, registry));
  return runToFile(argc, argv, input, output, registry);
}
