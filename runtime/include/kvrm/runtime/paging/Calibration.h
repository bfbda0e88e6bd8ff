//===- Calibration.h - Constants of a device, in a file ---------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The constants that SchedulePolicy.h predicts from, as `kvrm-run calibrate`
// measured them on one device for one attention, in a JSON file.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_PAGING_CALIBRATION_H
#define KVRM_RUNTIME_PAGING_CALIBRATION_H

#include "kvrm/runtime/paging/SchedulePolicy.h"
#include "kvrm/runtime/support/Status.h"

#include <string>
#include <string_view>
#include <vector>

namespace kvrm {

/// What a file of constants holds.
struct Calibration {
  std::string device;
  PolicyShape shape;
  std::vector<ScheduleCosts> settings; ///< one or two, which differ in usesPdl

  /// Null if that was not measured.
  const ScheduleCosts *costs(bool usesPdl) const;
  /// Errors: Incompatible if it was measured for another device or shape.
  Status check(std::string_view where, std::string_view onDevice,
               const PolicyShape &wanted) const;
};

/// Parses and checks; `where` names the text in errors. Errors: Corrupt,
/// Incompatible for a version that is not known.
Expected<Calibration> parseCalibration(std::string_view text,
                                       std::string_view where);
std::string formatCalibration(const Calibration &calibration);
/// Errors: NotFound, Corrupt, Incompatible, IoError.
Expected<Calibration> loadCalibration(const std::string &path);
/// Writes beside `path` first, so that no half file is left. Errors: IoError.
Status saveCalibration(const std::string &path, const Calibration &calibration);

} // namespace kvrm

#endif // KVRM_RUNTIME_PAGING_CALIBRATION_H
