//===- Library.cpp - libkvrm.so
//--------------------------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// All that is in the library comes from the archives that it is linked of.
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/kvrm.h"
#include "kvrm/text/kvrm-text.h"
