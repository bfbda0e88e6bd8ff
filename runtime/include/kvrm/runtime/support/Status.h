//===- Status.h - How the runtime reports failure ---------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Status and Expected<T>: what every fallible function of the runtime returns.
// A message is one line that names the thing, the field and the limit. A
// successful Status holds no memory; a failed one may own its text, so a step
// that is refused may allocate, one that runs does not.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SUPPORT_STATUS_H
#define KVRM_RUNTIME_SUPPORT_STATUS_H

#include "kvrm/runtime/support/Check.h"
#include "kvrm/runtime/support/OneLine.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>

namespace kvrm {

/// Classes of failure. The numbers are those of kvrm_status in kvrm.h.
enum class StatusCode : int32_t {
  Ok = 0,
  InvalidArgument = 1,   ///< a value outside its stated limits
  NotFound = 2,          ///< a file or symbol that is not there
  ResourceExhausted = 3, ///< out of pages or memory; try again after a release
  Incompatible = 4,      ///< another ABI version, or a CPU that lacks a feature
  Corrupt = 5,           ///< a file whose bytes are not what they should be
  IoError = 6,           ///< the operating system refused
  Internal = 7,          ///< compiled code broke the ABI's protocol
};

/// Result of an operation that returns nothing else.
class [[nodiscard]] Status {
public:
  Status() = default;
  Status(StatusCode code, std::string message)
      : errorCode(code), text(std::move(message)) {}

  static Status ok() { return {}; }

  bool isOk() const { return errorCode == StatusCode::Ok; }
  StatusCode code() const { return errorCode; }
  /// One line without a full stop or newline; empty when ok.
  const std::string &message() const { return text; }

private:
  StatusCode errorCode = StatusCode::Ok;
  std::string text;
};

namespace detail {
inline void appendPart(std::string &text, std::string_view part) {
  text.append(part);
}
template <typename Integer>
  requires std::is_integral_v<Integer>
void appendPart(std::string &text, Integer part) {
  text.append(std::to_string(part));
}
} // namespace detail

/// A failed Status whose message is the parts, strings and integers, in a row.
/// Parts may come from a file: see oneLine().
template <typename... Parts>
Status makeError(StatusCode code, const Parts &...parts) {
  KVRM_CHECK(code != StatusCode::Ok, "an error needs a code");
  std::string text;
  (detail::appendPart(text, parts), ...);
  return {code, oneLine(std::move(text))};
}

template <typename... Parts> Status invalidArgument(const Parts &...parts) {
  return makeError(StatusCode::InvalidArgument, parts...);
}

/// Refuses a number outside `low`..`high`: "plan: rows: 0 is outside 1..1024".
inline Status checkRange(std::string_view name, int64_t value, int64_t low,
                         int64_t high) {
  if (value < low || value > high)
    return invalidArgument(name, ": ", value, " is outside ", low, "..", high);
  return Status::ok();
}

/// Either a T or the Status that says why there is none.
template <typename T> class [[nodiscard]] Expected {
public:
  Expected(T value) : storage(std::in_place_index<0>, std::move(value)) {}
  Expected(Status status) : storage(std::in_place_index<1>, std::move(status)) {
    KVRM_CHECK(!std::get_if<1>(&storage)->isOk(),
               "an Ok status is not a value");
  }

  explicit operator bool() const { return storage.index() == 0; }
  T &operator*() { return value(); }
  const T &operator*() const { return value(); }
  T *operator->() { return &value(); }
  const T *operator->() const { return &value(); }

  /// Moves the value out; only when there is one.
  T take() { return std::move(value()); }

  /// Ok when there is a value.
  Status status() const {
    const Status *failed = std::get_if<1>(&storage);
    return failed ? *failed : Status();
  }

private:
  T &value() {
    KVRM_CHECK(storage.index() == 0, "no value: look at status() first");
    return *std::get_if<0>(&storage);
  }
  const T &value() const {
    KVRM_CHECK(storage.index() == 0, "no value: look at status() first");
    return *std::get_if<0>(&storage);
  }

  std::variant<T, Status> storage;
};

/// Returns from the enclosing function when `expression` is a failed Status.
#define KVRM_TRY(expression)                                                   \
  do {                                                                         \
    if (::kvrm::Status kvrmTryStatus = (expression); !kvrmTryStatus.isOk())    \
      return kvrmTryStatus;                                                    \
  } while (false)

} // namespace kvrm

#endif // KVRM_RUNTIME_SUPPORT_STATUS_H
