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
  costs.shares = 132;
  costs.workqueue = {2.5, 3000, 0.1, 0.4};
  costs.clusters = {{1, 132, 1.5, 2950, 35},
                    {2, 66, 2, 2950, 65},
                    {4, 32, 2.2, 2950, 130},
                    {8, 16, 2.4, 2900, 260}};
  return costs;
}

} // namespace kvrm::test

#endif // KVRM_RUNTIME_TEST_POLICYCONSTANTS_H
