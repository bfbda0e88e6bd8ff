//===- ReplayModes.cpp - Decoders of one model, side by side ----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ReplayModes.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#define XXH_INLINE_ALL
#include <xxhash.h>

using namespace kvrm;
using namespace kvrm::run;
using nlohmann::json;

//===----------------------------------------------------------------------===//
// One model
//===----------------------------------------------------------------------===//

/// A checksum of all weights that do not follow from the capacity. The tables
/// of rotary embeddings do; else the files of buckets would be equal.
static Expected<uint64_t> weightsFingerprint(const Package &package) {
  constexpr uint64_t maxHeader = 64 << 20;
  std::string path = package.path() + "/weights.safetensors";
  auto failed = [&] {
    return makeError(StatusCode::Corrupt, path, ": cannot be read again");
  };
  std::ifstream file(path, std::ios::binary);
  uint64_t length = 0;
  char bytes[8];
  if (!file.read(bytes, sizeof(bytes)))
    return failed();
  std::memcpy(&length, bytes, sizeof(bytes));
  if (length > maxHeader)
    return failed();
  std::string text(length, '\0');
  if (!file.read(text.data(), static_cast<std::streamsize>(length)))
    return failed();
  json header = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!header.is_object())
    return failed();
  uint64_t sum = 0;
  for (const auto &[name, tensor] : header.items()) {
    if (name == "__metadata__" || name == "rope_cos" || name == "rope_sin")
      continue;
    auto offsets = tensor.value("data_offsets", std::vector<int64_t>());
    if (offsets.size() != 2 || offsets[0] < 0 || offsets[0] > offsets[1] ||
        offsets[1] > package.weightBytes())
      return failed();
    std::string what = name + tensor.value("dtype", std::string()) +
                       tensor.value("shape", json()).dump();
    sum ^= XXH3_64bits_withSeed(package.weights() + offsets[0],
                                static_cast<size_t>(offsets[1] - offsets[0]),
                                XXH3_64bits(what.data(), what.size()));
  }
  return sum;
}

namespace {

/// A package as the comparison sees it.
struct Candidate {
  std::string path;
  Manifest manifest;
  uint64_t fingerprint = 0;
};

} // namespace

static Expected<Candidate> loadCandidate(const std::string &path,
                                         bool wantsPaged,
                                         const std::string &option) {
  Expected<Manifest> manifest = Package::readManifest(path);
  KVRM_TRY(manifest.status());
  if (manifest->isPaged != wantsPaged)
    return invalidArgument(
        option, path, ": is a ", manifest->isPaged ? "paged" : "static",
        " package, not a ", wantsPaged ? "paged" : "static", " one");
  Expected<std::shared_ptr<const Package>> package = Package::load(path);
  KVRM_TRY(package.status());
  Expected<uint64_t> sum = weightsFingerprint(**package);
  KVRM_TRY(sum.status());
  return Candidate{path, manifest.take(), *sum};
}

/// Whether two packages compute the same model.
static Status checkSame(const Candidate &a, const Candidate &b) {
  struct Field {
    const char *name;
    int32_t Manifest::*value;
  };
  for (const Field &field :
       {Field{"layers", &Manifest::layers}, Field{"hidden", &Manifest::hidden},
        Field{"heads", &Manifest::heads}, Field{"kv_heads", &Manifest::kvHeads},
        Field{"head_dim", &Manifest::headDim},
        Field{"vocabulary", &Manifest::vocabulary}})
    if (a.manifest.*field.value != b.manifest.*field.value)
      return invalidArgument(b.path, ": ", field.name, ": ",
                             b.manifest.*field.value, " is not ", a.path, "'s ",
                             a.manifest.*field.value,
                             "; a replay compares packages of one model");
  if (a.manifest.element != b.manifest.element)
    return invalidArgument(
        b.path, ": its KV is ", elementName(b.manifest.element), ", not ",
        elementName(a.manifest.element), " as ", a.path, "'s");
  if (a.fingerprint != b.fingerprint)
    return invalidArgument(b.path, ": its weights are not those of ", a.path,
                           "; a replay compares packages of one model");
  return Status::ok();
}

//===----------------------------------------------------------------------===//
// Equal budgets
//===----------------------------------------------------------------------===//

static int64_t tokenBytes(const Manifest &m) {
  return int64_t(m.layers) * m.kvHeads * m.headDim * 2 * 2;
}

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

const ModeSpec *ModeSet::find(const std::string &name) const {
  auto found = std::ranges::find(modes, name, &ModeSpec::name);
  return found == modes.end() ? nullptr : &*found;
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

static Status checkModes(const ReplayOptions &options,
                         std::vector<std::string> &names) {
  names = options.modes;
  if (names.empty()) {
    names.emplace_back("kvrm");
    if (!options.staticPackage.empty())
      names.emplace_back("max");
    if (!options.buckets.empty())
      names.emplace_back("bucketed");
  }
  for (size_t i = 0; i < names.size(); ++i) {
    const std::string &name = names[i];
    if (name != "kvrm" && name != "max" && name != "bucketed")
      return invalidArgument("--modes: '", name,
                             "' is not one of kvrm, max, bucketed");
    if (std::find(names.begin(), names.begin() + static_cast<int64_t>(i),
                  name) != names.begin() + static_cast<int64_t>(i))
      return invalidArgument("--modes: '", name, "' is there twice");
    if (name == "max" && options.staticPackage.empty())
      return invalidArgument("--modes: max needs --static");
    if (name == "bucketed" && options.buckets.empty())
      return invalidArgument("--modes: bucketed needs --bucket");
  }
  return Status::ok();
}

Expected<ModeSet> run::prepareModes(const CommonOptions &common,
                                    const ReplayOptions &options) {
  std::vector<std::string> names;
  KVRM_TRY(checkModes(options, names));
  ModeSet set;
  std::vector<Candidate> all;
  // The paged package is what others are compared with, whether it runs or not.
  Expected<Candidate> paged = loadCandidate(common.package, true, "");
  KVRM_TRY(paged.status());
  const Manifest &m = paged->manifest;
  set.modelName = m.modelName;
  set.layers = m.layers;
  set.vocabulary = m.vocabulary;
  set.pageTokens = m.pageTokens;
  for (const std::string &name : names) {
    std::vector<Candidate> candidates;
    if (name == "kvrm") {
      candidates.push_back(*paged);
    } else {
      const bool isMax = name == "max";
      for (const std::string &path :
           isMax ? std::vector{options.staticPackage} : options.buckets) {
        Expected<Candidate> candidate =
            loadCandidate(path, false, isMax ? "--static: " : "--bucket: ");
        KVRM_TRY(candidate.status());
        KVRM_TRY(checkSame(*paged, *candidate));
        candidates.push_back(candidate.take());
      }
      std::ranges::sort(candidates, {}, [](const Candidate &candidate) {
        return candidate.manifest.capacity;
      });
      for (size_t i = 0; i + 1 < candidates.size(); ++i) {
        if (candidates[i].manifest.slots != candidates[i + 1].manifest.slots)
          return invalidArgument("--bucket: ", candidates[i + 1].path, ": has ",
                                 candidates[i + 1].manifest.slots,
                                 " slots, not ", candidates[i].manifest.slots,
                                 " as ", candidates[i].path);
        if (candidates[i].manifest.capacity ==
            candidates[i + 1].manifest.capacity)
          return invalidArgument("--bucket: ", candidates[i + 1].path,
                                 ": capacity ", candidates[i].manifest.capacity,
                                 " is that of ", candidates[i].path);
      }
    }
    ModeSpec mode = makeMode(name, candidates);
    mode.config = common.session;
    mode.config.poolPages = 0;
    if (name == "kvrm") {
      mode.pageTokens = m.pageTokens;
      mode.config.poolPages = common.session.poolPages;
      if (options.sharesPrefixes)
        mode.config.keptHistories = options.keptHistories;
      mode.config.parkingPlaces = options.parkingPlaces;
      mode.config.parkingPages = options.parkingPages;
    }
    set.modes.push_back(std::move(mode));
  }

  // Without a budget it is what the static packages reserve.
  int64_t budget = options.kvBudgetBytes;
  if (budget == 0)
    for (const ModeSpec &mode : set.modes)
      if (!mode.isPaged())
        budget = std::max(budget, mode.budgetBytes);
  int64_t pageBytes = tokenBytes(m) * m.pageTokens;
  for (ModeSpec &mode : set.modes) {
    if (!mode.isPaged()) {
      KVRM_TRY(checkStaticBudget(mode, budget));
      continue;
    }
    int64_t pages = mode.config.poolPages;
    if (pages == 0)
      pages = budget == 0 ? int64_t(m.slots) * m.pagesPerSlot()
                          : budget / pageBytes;
    if (pages < 1)
      return invalidArgument("--kv-budget: ", mebibytes(budget),
                             " is less than a page of ", m.pageTokens,
                             " tokens, ", mebibytes(pageBytes));
    if (budget > 0 &&
        (pages * pageBytes > budget || (pages + 1) * pageBytes <= budget))
      return invalidArgument("--pool-pages: ", pages, " pages take ",
                             mebibytes(pages * pageBytes),
                             ", the KV budget is ", mebibytes(budget), " (",
                             budget / pageBytes, " pages)");
    mode.config.poolPages = pages;
    mode.poolPages =
        static_cast<int32_t>(std::min<int64_t>(pages, KVRM_MAX_POOL_PAGES));
    mode.budgetBytes = pages * pageBytes;
    // A request has no more than the pool. One whose pages are bounded below
    // its capacity may be longer.
    if (pages < m.pagesPerSlot())
      mode.capacity = static_cast<int32_t>(
          std::min<int64_t>(mode.capacity, pages * m.pageTokens));
    if (mode.config.parkingPlaces > 0 && mode.config.parkingPages == 0)
      mode.config.parkingPages = std::min<int64_t>(
          KVRM_MAX_POOL_PAGES,
          int64_t(mode.config.parkingPlaces) * m.pagesPerSlot());
  }
  set.budgetBytes = budget;
  if (budget == 0)
    set.budgetBytes = set.modes.front().budgetBytes;
  set.capacity = INT32_MAX;
  for (const ModeSpec &mode : set.modes)
    set.capacity = std::min(set.capacity, mode.capacity);
  if (set.capacity < 2)
    return invalidArgument("the KV budget has room for ", set.capacity,
                           " tokens of a request; 2 are the least");
  return set;
}

//===----------------------------------------------------------------------===//
// Opening
//===----------------------------------------------------------------------===//

/// Fills slots in turn, chunk by chunk, until all KV memory was written or time
/// is up, and takes a few decode steps.
static Status warmUp(Session &session, double seconds) {
  auto start = std::chrono::steady_clock::now();
  auto isOver = [&] {
    return std::chrono::steady_clock::now() - start >
           std::chrono::duration<double>(seconds);
  };
  auto slots = static_cast<size_t>(session.slots());
  std::vector<float> logits(slots * static_cast<size_t>(session.vocabulary()));
  std::vector<int32_t> tokens(slots, 1 % session.vocabulary());
  bool isFull = false;
  while (!isFull && !isOver()) {
    isFull = true;
    for (int32_t slot = 0; slot < session.slots() && !isOver(); ++slot) {
      int32_t room = session.capacity() - session.length(slot);
      // A token is left for the decode steps.
      int32_t count = std::min(room - 4, session.shape().prefillChunk);
      if (count < 1)
        continue;
      std::vector<int32_t> chunk(static_cast<size_t>(count), 0);
      Status status = session.prefill(slot, chunk, nullptr);
      if (status.code() == StatusCode::ResourceExhausted)
        break;
      KVRM_TRY(status);
      isFull = false;
    }
  }
  if (session.isPaged())
    for (int32_t slot = 1; slot < session.slots(); ++slot)
      KVRM_TRY(session.release(slot));
  for (int32_t step = 0; step < 3; ++step) {
    for (int32_t slot = 0; slot < session.slots(); ++slot)
      if (session.length(slot) >= session.capacity())
        KVRM_TRY(session.release(slot));
    Status status = session.decode(tokens, logits.data());
    if (status.code() == StatusCode::ResourceExhausted)
      break;
    KVRM_TRY(status);
  }
  for (int32_t slot = 0; slot < session.slots(); ++slot)
    KVRM_TRY(session.release(slot));
  return Status::ok();
}

Expected<std::unique_ptr<ModeDecoder>>
ModeSpec::open(double warmupSeconds) const {
  auto out = std::make_unique<ModeDecoder>();
  std::vector<std::unique_ptr<Session>> sessions;
  for (const std::string &path : packages) {
    Expected<std::shared_ptr<const Package>> package = Package::load(path);
    KVRM_TRY(package.status());
    Expected<std::unique_ptr<Session>> session =
        Session::create(package.take(), config);
    KVRM_TRY(session.status());
    KVRM_TRY(warmUp(**session,
                    warmupSeconds / static_cast<double>(packages.size())));
    sessions.push_back(session.take());
  }
  if (name == "bucketed") {
    Expected<std::unique_ptr<BucketedDecoder>> decoder =
        BucketedDecoder::create(std::move(sessions));
    KVRM_TRY(decoder.status());
    out->bucketed = decoder.take();
  } else {
    out->session = std::move(sessions.front());
    if (isPaged()) {
      out->filled.resize(static_cast<size_t>(out->session->poolPages()));
      out->touched.reserve(out->filled.size());
    }
  }
  return out;
}

//===----------------------------------------------------------------------===//
// Use
//===----------------------------------------------------------------------===//

int64_t ModeDecoder::pageBytes() const {
  return session && session->isPaged()
             ? session->tokenKvBytes() * session->shape().pageTokens
             : 0;
}

KvUse ModeDecoder::use(int32_t running) {
  Decoder &decoder = this->decoder();
  KvUse use;
  if (!decoder.isPaged()) {
    use.live = decoder.liveKvBytes();
    use.held = decoder.reservedKvBytes() / decoder.shape().slots * running;
    return use;
  }
  const BlockPager &pager = *session->blockPager();
  int32_t pageTokens = decoder.shape().pageTokens;
  int64_t live = 0;
  int64_t all = 0;
  touched.clear();
  for (int32_t slot = 0; slot < decoder.shape().slots; ++slot) {
    int32_t length = pager.length(slot);
    all += length;
    int32_t first = 0;
    for (int32_t page : pager.pages(slot)) {
      int32_t tokens = std::clamp(length - first, 0, pageTokens);
      first += pageTokens;
      int32_t &known = filled[static_cast<size_t>(page)];
      if (known == 0)
        touched.push_back(page);
      // A page that is reserved but empty is held all the same.
      int32_t now = std::max(known, tokens + 1);
      live += now - std::max(known, 1);
      known = now;
    }
  }
  use.held = decoder.liveKvBytes();
  use.kept = use.held - static_cast<int64_t>(touched.size()) * pageBytes();
  use.live = live * decoder.tokenKvBytes();
  use.sharedTokens = all - live;
  for (int32_t page : touched)
    filled[static_cast<size_t>(page)] = 0;
  return use;
}
