//===- Modes.cpp - Decoders of one model, side by side ----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Modes.h"
#include "Candidate.h"

#include <algorithm>
#include <cstdio>

using namespace kvrm;
using namespace kvrm::replay;

static int64_t tokenBytes(const Manifest &m) {
  return int64_t(m.layers) * m.kvHeads * 2 *
         kvrm_token_bytes(m.headDim, m.element);
}

const ModeSpec *ModeSet::find(const std::string &name) const {
  auto found = std::ranges::find(modes, name, &ModeSpec::name);
  return found == modes.end() ? nullptr : &*found;
}

//===----------------------------------------------------------------------===//
// Packages
//===----------------------------------------------------------------------===//

/// The names of the modes that run, in order.
static Expected<std::vector<std::string>> modeNames(const Options &options) {
  std::vector<std::string> names = options.modes;
  if (names.empty()) {
    names.emplace_back("kvrm");
    if (!options.staticPackage.empty())
      names.emplace_back("max");
    if (!options.buckets.empty())
      names.emplace_back("bucketed");
  }
  for (auto at = names.begin(); at != names.end(); ++at) {
    if (*at != "kvrm" && *at != "max" && *at != "bucketed")
      return invalidArgument("--modes: '", *at,
                             "' is not one of kvrm, max, bucketed");
    if (std::find(names.begin(), at, *at) != at)
      return invalidArgument("--modes: '", *at, "' is there twice");
    if (*at == "max" && options.staticPackage.empty())
      return invalidArgument("--modes: max needs --static");
    if (*at == "bucketed" && options.buckets.empty())
      return invalidArgument("--modes: bucketed needs --bucket");
  }
  return names;
}

/// Loads the static packages of a mode, by capacity.
static Expected<std::vector<Candidate>>
loadStatic(const std::vector<std::string> &paths, const std::string &option,
           const Candidate &paged) {
  std::vector<Candidate> all;
  for (const std::string &path : paths) {
    Expected<Candidate> candidate =
        loadCandidate(path, CacheKind::Static, option);
    KVRM_TRY(candidate.status());
    KVRM_TRY(checkSameModel(paged, *candidate));
    all.push_back(candidate.take());
  }
  std::ranges::sort(all, {}, [](const Candidate &candidate) {
    return candidate.manifest.capacity;
  });
  for (size_t i = 1; i < all.size(); ++i) {
    const Manifest &lower = all[i - 1].manifest;
    const Manifest &upper = all[i].manifest;
    if (lower.slots != upper.slots)
      return invalidArgument(option, all[i].path, ": has ", upper.slots,
                             " slots, not ", lower.slots, " as ",
                             all[i - 1].path);
    if (lower.capacity == upper.capacity)
      return invalidArgument(option, all[i].path, ": capacity ", lower.capacity,
                             " is that of ", all[i - 1].path);
  }
  return all;
}

static ModeSpec makeMode(const std::string &name,
                         const std::vector<Candidate> &candidates) {
  ModeSpec mode;
  mode.name = name;
  for (const Candidate &candidate : candidates)
    mode.packages.push_back(candidate.path);
  const Manifest &largest = candidates.back().manifest;
  mode.slots = largest.slots;
  mode.capacity = largest.capacity;
  mode.tokenBytes = tokenBytes(largest);
  mode.budgetBytes = mode.tokenBytes * mode.slots * mode.capacity;
  return mode;
}

static ModeSpec makePagedMode(const Candidate &paged, const Options &options) {
  ModeSpec mode = makeMode("kvrm", {paged});
  mode.pageTokens = paged.manifest.pageTokens;
  mode.config = options.session;
  return mode;
}

static Expected<ModeSpec> makeStaticMode(const std::string &name,
                                         const Candidate &paged,
                                         const Options &options) {
  Expected<std::vector<Candidate>> candidates =
      name == "max" ? loadStatic({options.staticPackage}, "--static: ", paged)
                    : loadStatic(options.buckets, "--bucket: ", paged);
  KVRM_TRY(candidates.status());
  // Histories are copied from bucket to bucket in host memory.
  for (const Candidate &candidate : *candidates)
    if (name == "bucketed" && candidate.manifest.target != TargetKind::Host)
      return invalidArgument("--bucket: ", candidate.path,
                             ": is for a GPU; buckets are of the host");
  ModeSpec mode = makeMode(name, *candidates);
  mode.config.threads = options.session.threads;
  mode.config.shares = options.session.shares;
  mode.config.device = options.session.device;
  return mode;
}

//===----------------------------------------------------------------------===//
// Equal budgets
//===----------------------------------------------------------------------===//

static std::string mebibytes(int64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.2f MiB",
                static_cast<double>(bytes) / (1 << 20));
  return text;
}

/// A static mode has as many slots as fit: at least one, and not one less.
static Status checkStaticBudget(const ModeSpec &mode, int64_t budget) {
  int64_t slotBytes = int64_t(mode.capacity) * mode.tokenBytes;
  if (slotBytes > budget)
    return invalidArgument(
        mode.packages.back(), ": one slot of ", mode.capacity, " tokens takes ",
        mebibytes(slotBytes), ", the KV budget is ", mebibytes(budget));
  if (mode.budgetBytes > budget || mode.budgetBytes + slotBytes <= budget)
    return invalidArgument(
        mode.packages.back(), ": its ", mode.slots, " slots of ", mode.capacity,
        " tokens take ", mebibytes(mode.budgetBytes), "; in the KV budget of ",
        mebibytes(budget), " are ", budget / slotBytes,
        ": compile it with --slots=", budget / slotBytes);
  return Status::ok();
}

/// The pages of the paged mode: as many as fit. Without a budget, those that
/// were asked for, or enough for all slots.
static Status fitPool(ModeSpec &mode, const Manifest &m, int64_t budget) {
  int64_t pageBytes = mode.tokenBytes * m.pageTokens;
  int64_t pages = mode.config.poolPages;
  if (pages == 0)
    pages =
        budget == 0 ? int64_t(m.slots) * m.pagesPerSlot : budget / pageBytes;
  if (pages < 1)
    return invalidArgument("--kv-budget: ", mebibytes(budget),
                           " is less than a page of ", m.pageTokens,
                           " tokens, ", mebibytes(pageBytes));
  if (budget > 0 &&
      (pages * pageBytes > budget || (pages + 1) * pageBytes <= budget))
    return invalidArgument("--pool-pages: ", pages, " pages take ",
                           mebibytes(pages * pageBytes), ", the KV budget is ",
                           mebibytes(budget), " (", budget / pageBytes,
                           " pages)");
  mode.config.poolPages = pages;
  mode.poolPages =
      static_cast<int32_t>(std::min<int64_t>(pages, KVRM_MAX_POOL_PAGES));
  mode.budgetBytes = pages * pageBytes;
  // A request has no more than the pool. One whose pages are bounded below
  // its capacity may be longer.
  if (pages < m.pagesPerSlot)
    mode.capacity = static_cast<int32_t>(
        std::min<int64_t>(mode.capacity, pages * m.pageTokens));
  if (mode.config.parkingPlaces > 0 && mode.config.parkingPages == 0)
    mode.config.parkingPages =
        std::min<int64_t>(KVRM_MAX_POOL_PAGES,
                          int64_t(mode.config.parkingPlaces) * m.pagesPerSlot);
  return Status::ok();
}

/// Fits all modes to one budget: what was asked for, or else the most that a
/// static mode reserves.
static Status fitBudget(ModeSet &set, const Manifest &paged, int64_t budget) {
  if (budget == 0)
    for (const ModeSpec &mode : set.modes)
      if (!mode.isPaged())
        budget = std::max(budget, mode.budgetBytes);
  for (ModeSpec &mode : set.modes)
    KVRM_TRY(mode.isPaged() ? fitPool(mode, paged, budget)
                            : checkStaticBudget(mode, budget));
  set.budgetBytes = budget > 0 ? budget : set.modes.front().budgetBytes;
  set.capacity = INT32_MAX;
  for (const ModeSpec &mode : set.modes)
    set.capacity = std::min(set.capacity, mode.capacity);
  if (set.capacity < 2)
    return invalidArgument("the KV budget has room for ", set.capacity,
                           " tokens of a request; 2 are the least");
  return Status::ok();
}

Expected<ModeSet> replay::prepareModes(const Options &options) {
  Expected<std::vector<std::string>> names = modeNames(options);
  KVRM_TRY(names.status());
  // The paged package is what others are compared with, whether it runs or not.
  Expected<Candidate> paged =
      loadCandidate(options.package, CacheKind::Paged, "");
  KVRM_TRY(paged.status());
  const Manifest &m = paged->manifest;
  ModeSet set;
  set.modelName = m.modelName;
  set.layers = m.layers;
  set.vocabulary = m.vocabulary;
  set.pageTokens = m.pageTokens;
  for (const std::string &name : *names) {
    if (name == "kvrm") {
      set.modes.push_back(makePagedMode(*paged, options));
      continue;
    }
    Expected<ModeSpec> mode = makeStaticMode(name, *paged, options);
    KVRM_TRY(mode.status());
    set.modes.push_back(mode.take());
  }
  KVRM_TRY(fitBudget(set, m, options.kvBudgetBytes()));
  return set;
}
