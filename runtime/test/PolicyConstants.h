//===- PolicyConstants.h - Constants of a made-up GPU -----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_TEST_POLICYCONSTANTS_H
#define KVRM_RUNTIME_TEST_POLICYCONSTANTS_H

#include "kvrm/runtime/paging/SchedulePolicy.h"

namespace kvrm::test {

inline PolicyShape testShape() {
  PolicyShape shape;
  shape.heads = 32;
  shape.kvHeads = 8;
  return shape;
}

inline ScheduleCosts testCosts() {
  ScheduleCosts costs;
  costs.workqueue = {132, 64, 2.5, 3000, 60, 3.5, 0.1};
  costs.clusters = {{1, 132, 1.5, 2950, 35, 3},
                    {2, 66, 2, 2950, 65, 3},
                    {4, 32, 2.2, 2950, 130, 2.5},
                    {8, 16, 2.4, 2900, 260, 2}};
  return costs;
}

} // namespace kvrm::test

#endif // KVRM_RUNTIME_TEST_POLICYCONSTANTS_H
