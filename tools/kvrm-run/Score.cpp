//===- Score.cpp - kvrm-run score -------------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Feeds given tokens instead of sampled ones, and keeps what the model made of
// them: a prompt by prefill, every later token by one decode step. Sequences
// run in slots together, and a slot that is done takes the next sequence.
//
//===----------------------------------------------------------------------===//

#include "Commands.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <iostream>
#include <limits>
#include <nlohmann/json.hpp>
#include <unistd.h>

using namespace kvrm;
using nlohmann::json;

static constexpr size_t maxSequences = 65536;
static constexpr int64_t maxLogitsBytes = int64_t(1) << 40;

namespace {

/// A NumPy file of float32 [sequences][steps][vocabulary], filled row by row in
/// any order. It has a temporary name until it is complete. The format is
/// https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
class LogitsFile {
public:
  LogitsFile() = default;
  LogitsFile(const LogitsFile &) = delete;
  LogitsFile &operator=(const LogitsFile &) = delete;
  ~LogitsFile() {
    if (descriptor >= 0)
      ::close(descriptor);
    if (!temporary.empty())
      ::unlink(temporary.c_str());
  }

  Status open(const std::string &name, int64_t sequences, int64_t stepCount,
              int64_t vocabulary) {
    path = name;
    steps = stepCount;
    rowBytes = vocabulary * int64_t(sizeof(float));
    if (sequences * steps > maxLogitsBytes / rowBytes)
      return invalidArgument("--logits: ", sequences, " x ", steps, " x ",
                             vocabulary, " floats are over the limit of ",
                             maxLogitsBytes, " bytes");
    std::string unfinished = path + ".tmp-" + std::to_string(::getpid());
    descriptor = ::open(unfinished.c_str(),
                        O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor < 0)
      return fail("cannot create");
    temporary = std::move(unfinished);

    std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (" +
                         std::to_string(sequences) + ", " +
                         std::to_string(steps) + ", " +
                         std::to_string(vocabulary) + "), }";
    // Magic, version 1.0 and a 16-bit length come first; data is aligned to 64.
    constexpr size_t prefix = 10;
    header.resize((prefix + header.size() + 1 + 63) / 64 * 64 - prefix, ' ');
    header.back() = '\n';
    std::string start("\x93NUMPY\x01\x00", 8);
    start += static_cast<char>(header.size() & 0xff);
    start += static_cast<char>(header.size() >> 8);
    start += header;
    dataStart = static_cast<int64_t>(start.size());
    return writeAt(start.data(), dataStart, 0);
  }

  Status write(int64_t sequence, int64_t step, const float *row) {
    static_assert(std::endian::native == std::endian::little);
    return writeAt(reinterpret_cast<const char *>(row), rowBytes,
                   dataStart + (sequence * steps + step) * rowBytes);
  }

  Status commit() {
    int result = ::close(descriptor);
    descriptor = -1;
    if (result != 0)
      return fail("cannot write");
    if (::rename(temporary.c_str(), path.c_str()) != 0)
      return fail("cannot move into place");
    temporary.clear();
    return Status::ok();
  }

private:
  Status fail(const char *what) const {
    return makeError(StatusCode::IoError, path, ": ", what, ": ",
                     std::strerror(errno));
  }
  Status writeAt(const char *bytes, int64_t count, int64_t offset) {
    while (count > 0) {
      ssize_t written =
          ::pwrite(descriptor, bytes, static_cast<size_t>(count), offset);
      if (written < 0 && errno == EINTR)
        continue;
      if (written < 0)
        return fail("cannot write");
      bytes += written;
      count -= written;
      offset += written;
    }
    return Status::ok();
  }

  std::string path;
  std::string temporary;
  int descriptor = -1;
  int64_t dataStart = 0;
  int64_t rowBytes = 0;
  int64_t steps = 0;
};

struct Sequence {
  std::vector<int32_t> ids;
  int32_t prompt = 0; ///< tokens fed by prefill
  /// Most likely token after the prompt, and after each decoded token.
  std::vector<int32_t> choices;
  double logLikelihood = 0; ///< of the decoded tokens

  int64_t steps() const {
    return static_cast<int64_t>(ids.size()) - prompt + 1;
  }
  int64_t decoded() const { return steps() - 1; }
};

class Scorer {
public:
  Scorer(Session &session, std::vector<Sequence> &sequences, LogitsFile *file)
      : session(session), sequences(sequences), file(file) {}
  Status run();

  int64_t peakLiveBytes = 0; ///< of KV
  int64_t decodeSteps = 0;
  int64_t decodeNanoseconds = 0;

private:
  Status take(size_t index, const float *row);

  Session &session;
  std::vector<Sequence> &sequences;
  LogitsFile *file;
};

} // namespace

/// Keeps the logits of the last token that was fed.
Status Scorer::take(size_t index, const float *row) {
  Sequence &sequence = sequences[index];
  size_t step = sequence.choices.size();
  const float *end = row + session.vocabulary();
  for (const float *at = row; at != end; ++at)
    if (!std::isfinite(*at))
      return makeError(StatusCode::Internal, "sequence ", index,
                       ": the model's logits are not finite at position ",
                       static_cast<size_t>(sequence.prompt) + step - 1);
  const float *best = std::max_element(row, end);
  sequence.choices.push_back(static_cast<int32_t>(best - row));
  size_t next = static_cast<size_t>(sequence.prompt) + step;
  if (next < sequence.ids.size()) {
    double sum = 0;
    for (const float *at = row; at != end; ++at)
      sum += std::exp(static_cast<double>(*at) - *best);
    sequence.logLikelihood +=
        static_cast<double>(row[sequence.ids[next]]) - *best - std::log(sum);
  }
  return file ? file->write(static_cast<int64_t>(index),
                            static_cast<int64_t>(step), row)
              : Status::ok();
}

Status Scorer::run() {
  auto slots = static_cast<size_t>(session.slots());
  auto vocabulary = static_cast<size_t>(session.vocabulary());
  std::vector<float> logits(slots * vocabulary);
  std::vector<int32_t> tokens(slots);
  constexpr size_t idle = std::numeric_limits<size_t>::max();
  std::vector<size_t> running(slots, idle);
  size_t waiting = 0;
  while (true) {
    bool isActive = false;
    for (size_t slot = 0; slot < slots; ++slot) {
      auto id = static_cast<int32_t>(slot);
      // A sequence that is all prompt ends here, and the next may follow.
      while (true) {
        if (running[slot] != idle) {
          const Sequence &sequence = sequences[running[slot]];
          size_t fed = static_cast<size_t>(session.length(id));
          if (fed < sequence.ids.size()) {
            tokens[slot] = sequence.ids[fed];
            isActive = true;
            break;
          }
          KVRM_TRY(session.release(id));
          running[slot] = idle;
        }
        tokens[slot] = -1;
        if (waiting == sequences.size())
          break;
        const Sequence &next = sequences[waiting];
        KVRM_TRY(session.prefill(
            id, std::span(next.ids).first(static_cast<size_t>(next.prompt)),
            logits.data()));
        peakLiveBytes = std::max(peakLiveBytes, session.liveKvBytes());
        KVRM_TRY(take(waiting, logits.data()));
        running[slot] = waiting++;
      }
    }
    if (!isActive)
      return Status::ok();
    KVRM_TRY(session.decode(tokens, logits.data()));
    peakLiveBytes = std::max(peakLiveBytes, session.liveKvBytes());
    decodeNanoseconds += session.lastStep().stepNanoseconds;
    ++decodeSteps;
    for (size_t slot = 0; slot < slots; ++slot)
      if (tokens[slot] >= 0)
        KVRM_TRY(take(running[slot], logits.data() + slot * vocabulary));
  }
}

/// Reads and checks the sequences. One prompt length serves them all.
static Status readSequences(const run::ScoreOptions &options, const Manifest &m,
                            std::vector<Sequence> &sequences) {
  size_t count = options.tokenIds.size();
  if (options.promptLengths.size() > 1 && options.promptLengths.size() != count)
    return invalidArgument("--prompt-length: ", options.promptLengths.size(),
                           " lengths for ", count, " sequences");
  for (size_t i = 0; i < count; ++i) {
    Expected<std::vector<int32_t>> ids = run::parseIds(options.tokenIds[i]);
    KVRM_TRY(ids.status());
    Sequence sequence;
    sequence.ids = ids.take();
    for (int32_t id : sequence.ids)
      if (id < 0 || id >= m.vocabulary)
        return invalidArgument("sequence ", i, ": token ", id,
                               " is outside 0..", m.vocabulary - 1);
    if (sequence.ids.size() > static_cast<size_t>(m.capacity))
      return invalidArgument("sequence ", i, ": ", sequence.ids.size(),
                             " tokens exceed the capacity ", m.capacity);
    if (!options.promptLengths.empty())
      sequence.prompt =
          options.promptLengths[options.promptLengths.size() == 1 ? 0 : i];
    else
      sequence.prompt = 1;
    if (sequence.prompt < 1 ||
        static_cast<size_t>(sequence.prompt) > sequence.ids.size())
      return invalidArgument("sequence ", i,
                             ": --prompt-length: ", sequence.prompt,
                             " is outside 1..", sequence.ids.size());
    sequences.push_back(std::move(sequence));
  }
  return Status::ok();
}

static json describe(int64_t decoded, double logLikelihood) {
  if (decoded == 0)
    return {{"decoded", 0}, {"mean_nll", nullptr}, {"perplexity", nullptr}};
  double mean = -logLikelihood / static_cast<double>(decoded);
  return {
      {"decoded", decoded}, {"mean_nll", mean}, {"perplexity", std::exp(mean)}};
}

static void print(const char *who, int64_t decoded, double logLikelihood) {
  if (decoded == 0) {
    std::printf("%s: no tokens after the prompt\n", who);
    return;
  }
  double mean = -logLikelihood / static_cast<double>(decoded);
  std::printf("%s: %lld tokens, mean negative log likelihood %.6f, perplexity "
              "%.4f\n",
              who, static_cast<long long>(decoded), mean, std::exp(mean));
}

Status run::score(const CommonOptions &common, const ScoreOptions &options) {
  if (options.tokenIds.empty())
    return invalidArgument("nothing to score: give --token-ids");
  if (options.tokenIds.size() > maxSequences)
    return invalidArgument(options.tokenIds.size(),
                           " sequences are more than the limit ", maxSequences);
  Expected<std::shared_ptr<const Package>> package =
      Package::load(common.package);
  KVRM_TRY(package.status());
  const Manifest &m = (*package)->manifest();
  std::vector<Sequence> sequences;
  KVRM_TRY(readSequences(options, m, sequences));
  int64_t steps = 0;
  for (const Sequence &sequence : sequences)
    steps = std::max(steps, sequence.steps());
  Expected<std::unique_ptr<Session>> session =
      Session::create(*package, common.session);
  KVRM_TRY(session.status());

  LogitsFile file;
  bool isWriting = !options.logits.empty();
  if (isWriting) {
    KVRM_TRY(file.open(options.logits, static_cast<int64_t>(sequences.size()),
                       steps, m.vocabulary));
    // Steps that a sequence does not have.
    std::vector<float> none(static_cast<size_t>(m.vocabulary),
                            std::numeric_limits<float>::quiet_NaN());
    for (size_t i = 0; i < sequences.size(); ++i)
      for (int64_t step = sequences[i].steps(); step < steps; ++step)
        KVRM_TRY(file.write(static_cast<int64_t>(i), step, none.data()));
  }
  Scorer scorer(**session, sequences, isWriting ? &file : nullptr);
  KVRM_TRY(scorer.run());
  if (isWriting)
    KVRM_TRY(file.commit());

  int64_t decoded = 0;
  double logLikelihood = 0;
  for (const Sequence &sequence : sequences) {
    decoded += sequence.decoded();
    logLikelihood += sequence.logLikelihood;
  }
  if (!common.isJson) {
    for (size_t i = 0; sequences.size() > 1 && i < sequences.size(); ++i)
      print(("[" + std::to_string(i) + "]").c_str(), sequences[i].decoded(),
            sequences[i].logLikelihood);
    print("all", decoded, logLikelihood);
    return Status::ok();
  }
  json items = json::array();
  for (const Sequence &sequence : sequences) {
    json item = describe(sequence.decoded(), sequence.logLikelihood);
    item["prompt_length"] = sequence.prompt;
    item["choices"] = sequence.choices;
    items.push_back(std::move(item));
  }
  json out = describe(decoded, logLikelihood);
  out["package"] = common.package;
  out["mode"] = m.isPaged ? "paged" : "static";
  out["sequences"] = std::move(items);
  out["kv"] = {{"peak_live_bytes", scorer.peakLiveBytes},
               {"reserved_bytes", (*session)->reservedKvBytes()}};
  if (scorer.decodeSteps > 0)
    out["mean_step_ms"] = static_cast<double>(scorer.decodeNanoseconds) * 1e-6 /
                          static_cast<double>(scorer.decodeSteps);
  if (isWriting)
    out["logits"] = options.logits;
  std::cout << out.dump(2, ' ', false, json::error_handler_t::replace) << "\n";
  std::cout.flush();
  return Status::ok();
}
