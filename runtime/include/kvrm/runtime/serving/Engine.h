//===- Engine.h - Requests through a decoder's slots ------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Serves requests that come and go over a decoder whose step never changes:
// continuous batching (Orca, OSDI 2022) with prefill in chunks between decode
// steps (Sarathi-Serve, arXiv 2403.02310).
//
//   submit ──▶ waiting ──▶ prefilling ──▶ decoding ──▶ finished
//                 ▲ first      │  one at a     │
//                 │            │  time         ▼
//                 └────────────┴────────── preempted (parked, or to recompute)
//
// One call of step() is one round:
//
//   1. prefill   chunks of the oldest request that is not decoding yet, as many
//                as fit into `stallFactor` decode steps, one at least
//   2. decode    one token of every request that is decoding
//
// If the decoder has a mixed step, the last of the chunks is computed in the
// decode step, so that the weights are read once for both.
//
// If the decoder runs ahead (DecoderShape::stepsAhead), a round starts its step
// and then waits for the one before, whose tokens the decoder feeds to the new
// one by itself: the host's work is done while steps run. Requests get the same
// tokens: one that ends by a token has begun a step too many, which is dropped.
//
// A request may ask how likely its tokens are. A step that chooses one for it
// brings its logits; as those of a step under way are not to be had
// (StepOutputs::later()), such a round does not run ahead.
//
// Requests start in order of arrival, preempted ones first, as soon as a slot
// is free and the pool has pages for the prompt and one more for each request
// that decodes. While there are none for the next, a few behind it may start,
// so often and no more: then all wait for it. If pages run out none the less,
// kept prefixes go first, then the youngest request is preempted: its history
// is parked in host memory, or dropped and computed again, whichever has been
// cheaper per token. The oldest request can take every page, so that somebody
// always gets on.
//
// With shared prefixes, a prompt that starts like a history in the pool starts
// on that history's pages; finished histories are kept as long as nobody needs
// their pages (as in SGLang's RadixAttention, arXiv 2312.07104, by pages).
//
// The engine holds no thread and no timer: it runs inside the caller's calls,
// by the clock it is given, and the same calls on the same clock give the same
// results. What is in it is bounded by the queue's limit and the decoder's
// shape. An engine is used by one thread at a time.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SERVING_ENGINE_H
#define KVRM_RUNTIME_SERVING_ENGINE_H

#include "kvrm/runtime/serving/LogSoftmax.h"
#include "kvrm/runtime/serving/PrefixIndex.h"
#include "kvrm/runtime/serving/Sampler.h"
#include "kvrm/runtime/session/Decoder.h"
#include "kvrm/runtime/support/Clock.h"
#include "kvrm/runtime/support/Status.h"

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace kvrm {

/// Numbers grow in order of arrival and are never used again.
using RequestId = int64_t;

struct RequestSpec {
  std::vector<int32_t> prompt;
  int32_t maxTokens = 128; ///< to generate, one or more
  SamplingSettings sampling;
  std::vector<int32_t> stopTokens; ///< ends of text; not part of the result
  /// Set: tokens come with log probabilities, their own and those of so many of
  /// the likeliest, 0..mostTopLogprobs.
  std::optional<int32_t> topLogprobs;
};

enum class FinishReason { Stop, MaxTokens, Capacity, Cancelled, Failed };
/// "stop", "max-tokens", "capacity", "cancelled" or "failed".
const char *finishReasonName(FinishReason reason);

/// Times are of the engine's clock; -1 = did not happen.
struct RequestResult {
  RequestId id = -1;
  std::vector<int32_t> tokens;
  FinishReason finish = FinishReason::Cancelled;
  int32_t promptTokens = 0;
  int32_t sharedTokens = 0; ///< of the prompt, found in the pool at first start
  int32_t preemptions = 0;
  int64_t arrival = -1;
  int64_t start = -1; ///< of its first prefill
  int64_t firstToken = -1;
  int64_t end = -1;
  std::string error; ///< why, when it failed
};

/// Told what happens, in step() and cancel(). May not call the engine.
class EngineObserver {
public:
  virtual ~EngineObserver() = default;
  /// `logprobs` is null unless the request asked; it lives during the call.
  virtual void onToken(RequestId, int32_t /*token*/,
                       const TokenLogprobs * /*logprobs*/) {}
  /// The result may be moved from; the engine has forgotten the request.
  virtual void onFinish(RequestResult &) {}
};

/// How a preempted request's history is kept.
enum class PreemptionPolicy { Cheaper, Park, Recompute };

struct EngineConfig {
  /// Requests that may wait, 1..65536; beyond that submit() refuses.
  int32_t queueLimit = 256;
  /// Prefill between two decode steps, in decode steps; 0..1000. One chunk is
  /// computed whatever it is.
  double stallFactor = 1;
  PreemptionPolicy preemption = PreemptionPolicy::Cheaper;
  /// How many requests may start before one that came earlier and has no pages
  /// for its prompt, 0..65536; 0: nobody overtakes. One that was preempted is
  /// not overtaken.
  int32_t overtakeLimit = 8;
  /// Equal prompt prefixes share pages. Finished histories are kept if the
  /// decoder has histories besides its slots.
  bool sharesPrefixes = false;
};

/// Sums since the engine was made, and what is in it now.
struct EngineStats {
  int64_t submitted = 0;
  int64_t refused = 0; ///< by a full queue
  int64_t finished = 0;
  int64_t cancelled = 0;
  int64_t failed = 0;
  int64_t steps = 0; ///< decode steps, the mixed ones too
  int64_t mixedSteps = 0;
  int64_t prefillTokens = 0;
  int64_t mixedTokens = 0; ///< of these, computed in mixed steps
  int64_t decodeTokens = 0;
  int64_t sharedTokens = 0; ///< prompt tokens that were in the pool already
  int64_t sharedPages = 0;
  int64_t parked = 0;
  int64_t unparked = 0;
  int64_t parkedTokens = 0;
  int64_t recomputed = 0; ///< requests preempted so
  int64_t recomputedTokens = 0;
  int64_t evicted = 0;   ///< kept histories given up for pages
  int64_t overtakes = 0; ///< starts before a request that came earlier
  int32_t waiting = 0;
  int32_t preempted = 0;
  int32_t running = 0; ///< in a slot
  int32_t kept = 0;    ///< histories kept to be shared from
};

/// What the last round did.
struct RoundStats {
  int32_t prefillTokens = 0;
  int32_t mixedTokens = 0; ///< of these, computed in the decode step
  int32_t prefillChunks = 0;
  int64_t prefillNanoseconds = 0; ///< of those that are not
  int32_t decodeTokens = 0;       ///< 0 = no decode step
  int64_t decodeNanoseconds = 0;
  int64_t nanoseconds = 0;
};

class Engine {
public:
  /// The decoder must be empty and outlive the engine, as must clock and
  /// observer (which may be null). Errors: InvalidArgument.
  static Expected<std::unique_ptr<Engine>> create(Decoder &decoder,
                                                  const Clock &clock,
                                                  const EngineConfig &config,
                                                  EngineObserver *observer);
  /// Forgets all requests; the decoder is empty after.
  ~Engine();
  Engine(const Engine &) = delete;
  Engine &operator=(const Engine &) = delete;

  /// Queues a request. Errors: InvalidArgument for one that can never run
  /// (empty or too long prompt, bad token or setting, more pages than the pool
  /// has); ResourceExhausted when the queue is full: try again later.
  Expected<RequestId> submit(RequestSpec spec);

  /// Ends a request; its observer is told. Errors: NotFound if it has ended.
  Status cancel(RequestId id);

  /// One round. An error is the decoder's: requests stay where they were, and
  /// the next call tries again. Nothing to do is no error.
  Status step();

  /// Whether no request is in the engine.
  bool isIdle() const { return requests.empty(); }
  bool canSubmit() const { return sums.waiting < config.queueLimit; }

  const EngineStats &stats() const { return sums; }
  const RoundStats &lastRound() const { return round; }
  /// Tokens in the histories of slots.
  int64_t runningTokens() const;

  /// Verifies that every request is in one place and every history belongs to
  /// one request. For tests: linear in what the engine holds.
  Status checkInvariants() const;

private:
  enum class Phase { Waiting, Prefilling, Decoding, Parked, Dropped };

  struct Request {
    RequestSpec spec;
    RequestResult result;
    Phase phase = Phase::Waiting;
    int32_t slot = -1;
    int32_t place = -1; ///< of a parked one
    /// Tokens of prompt and result that the history has, or will have when its
    /// prefill is done.
    int32_t target = 0;
    /// Of steps that are under way: tokens that they append, and results that
    /// they choose.
    int32_t tokensAhead = 0;
    int32_t choicesAhead = 0;
    int32_t overtaken = 0; ///< starts of later ones while this waited
    /// Of the next token that no step under way chooses.
    std::optional<Sampler> sampler;
  };

  /// A finished history kept to be shared from.
  struct Kept {
    std::vector<int32_t> tokens;
    int64_t lastUse = -1; ///< -1 = empty
  };

  /// Requests in order of arrival. Nodes are made by submit() alone.
  using Requests = std::map<RequestId, Request>;

  Engine(Decoder &decoder, const Clock &clock, const EngineConfig &config,
         EngineObserver *observer);

  Status check(const RequestSpec &spec) const;
  int32_t tokenAt(const Request &request, int32_t position) const;
  std::span<const int32_t> tokensOf(const Request &request, int32_t first,
                                    int32_t count);
  int32_t historyToken(int32_t history, int32_t position) const;
  int64_t pagesFor(int64_t tokens) const;

  /// The next tokens of a prompt, of one step.
  struct Chunk {
    std::span<const int32_t> tokens; ///< in scratchTokens
    bool isLast = false;             ///< of the prompt
    bool choosesFirst = false;       ///< the first token of the result
  };

  /// A decode step that was started, or a mixed one.
  struct Flight {
    std::vector<RequestId> rows; ///< [slots], -1 = idle
    int32_t active = 0;
    RequestId prompt = -1; ///< whose chunk is computed
    int32_t chunkTokens = 0;
    bool choosesFirst = false;
    bool bringsLogits = false;
    bool isLater = false; ///< its tokens are to be awaited
    int64_t start = 0;
    std::vector<int32_t> next; ///< [slots], then of the prompt
  };

  Status prefillSome(bool &leavesChunk);
  bool startNext();
  bool start(Request &request, int32_t slot);
  bool unpark(Request &request, int32_t slot);
  bool startPrefill(Request &request, int32_t slot);
  int32_t sharePrefix(Request &request, int32_t slot);
  Chunk nextChunk(const Request &request);
  Status prefillChunk(Request &request);
  void finishChunk(Request &request, int32_t tokens, bool choosesFirst,
                   int32_t next);
  void addPages(const Request &request);
  void emit(Request &request, int32_t token, size_t row);
  void tell(const Request &request, int32_t token, size_t row);
  float *logitsOf(size_t row);

  // Decode steps, in EngineSteps.cpp.
  int32_t known(const Request &request) const;
  bool goesOn(const Request &request) const;
  bool wantsLogits(bool withChunk);
  Status awaitForLogits(bool withChunk);
  Flight &gatherDecoding(bool withChunk);
  StepOutputs outputsOf(Flight &flight);
  void started(const Flight &flight);
  void startedChunk(Flight &flight, Request &request, const Chunk &chunk);
  Status decodeAll();
  Status decodeWithChunk();
  Status collect();
  Status collectDownTo(size_t underWay);
  Status collectStarted(const Flight &flight);
  void finishFlight(const Flight &flight);
  void loseFlights();
  void loseSteps(Request &request);
  bool cutAhead(Request &request);

  bool makeRoom(int32_t slot, int32_t tokens);
  bool reclaim(const Request *beneficiary);
  void preempt(Request &request);
  void drop(Request &request);
  bool evictKept();
  void keep(Request &request);
  void leaveSlot(Request &request);
  void finish(Requests::iterator at, FinishReason reason, std::string error);
  static void learn(double &mean, double value);

  Status checkRequest(RequestId id, const Request &request) const;
  Status checkRequests() const;
  Status checkSlots() const;
  Status checkPlaces() const;
  Status checkKept() const;

  Decoder &decoder;
  const Clock &clock;
  EngineConfig config;
  EngineObserver *observer;
  Requests requests;
  RequestId nextId = 0;
  RequestId prefilling = -1;
  std::vector<RequestId> slotOwner;  ///< [slots], -1 = free
  std::vector<RequestId> placeOwner; ///< [parkingPlaces], -1 = free
  std::vector<Kept> kept;            ///< [histories - slots]
  PrefixIndex prefixes;
  std::vector<int32_t> scratchTokens;   ///< [capacity] of tokensOf()
  std::vector<Request *> scratchPassed; ///< of startNext()
  // Of a decode step:
  std::vector<int32_t> stepTokens;         ///< [slots]
  std::vector<kvrm_sampling> stepSampling; ///< [slots], then of a prompt
  /// [slots + 1][vocabulary], the last of a prompt; empty until a request asks
  /// for log probabilities.
  std::vector<float> stepLogits;
  TokenLogprobs scratchLogprobs; ///< of tell()
  std::vector<Flight> flights;   ///< a ring: those that can be started
  size_t firstFlight = 0;
  size_t underWay = 0;
  int64_t lastCollected = 0; ///< when
  EngineStats sums;
  RoundStats round;
  // Running means of what things cost, in nanoseconds.
  double decodeCost = 0;       ///< a decode step
  double chunkCost = 0;        ///< a prefill chunk
  double prefillTokenCost = 0; ///< a token of prefill
  double parkTokenCost = 0;    ///< a token of park() or unpark()
};

} // namespace kvrm

#endif // KVRM_RUNTIME_SERVING_ENGINE_H
