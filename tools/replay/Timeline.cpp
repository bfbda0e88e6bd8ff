//===- Timeline.cpp - A replay as a Chrome trace ----------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Timeline.h"

using namespace kvrm;
using namespace kvrm::replay;

// Threads of a process.
static constexpr int roundThread = 1;
static constexpr int requestThread = 2;

static double microseconds(int64_t nanoseconds) {
  return static_cast<double>(nanoseconds) / 1e3;
}

Expected<std::unique_ptr<Timeline>> Timeline::create(const std::string &path) {
  Expected<UnfinishedFile> file = UnfinishedFile::create(path);
  KVRM_TRY(file.status());
  std::unique_ptr<Timeline> timeline(new Timeline(file.take()));
  std::fputs("{\"displayTimeUnit\":\"ms\",\"traceEvents\":[",
             timeline->file.stream());
  return timeline;
}

Status Timeline::close() {
  std::fprintf(file.stream(), "\n],\"otherData\":{\"complete\":\"%s\"}}\n",
               isFull() ? "no: the limit of events was reached" : "yes");
  return file.commit();
}

/// Starts an event; the caller adds fields and calls end(). False if the limit
/// is reached.
bool Timeline::begin(const char *name, char phase, int64_t time, int thread) {
  if (isFull())
    return false;
  std::fprintf(file.stream(),
               "%s\n{\"name\":\"%s\",\"ph\":\"%c\",\"ts\":%.3f,\"pid\":%d,"
               "\"tid\":%d",
               events == 0 ? "" : ",", name, phase, microseconds(time), mode,
               thread);
  ++events;
  return true;
}

void Timeline::beginMode(const std::string &name) {
  ++mode;
  struct Name {
    const char *kind;
    int thread;
    std::string text;
  };
  for (const Name &entry : {Name{"process_name", 0, name},
                            Name{"thread_name", roundThread, "rounds"},
                            Name{"thread_name", requestThread, "events"}})
    if (begin(entry.kind, 'M', 0, entry.thread)) {
      std::fprintf(file.stream(), ",\"args\":{\"name\":\"%s\"}",
                   entry.text.c_str());
      end();
    }
}

void Timeline::round(int64_t start, const RoundStats &round) {
  auto add = [&](const char *name, int64_t at, int64_t length, int32_t tokens) {
    if (!begin(name, 'X', at, roundThread))
      return;
    std::fprintf(file.stream(), ",\"dur\":%.3f,\"args\":{\"tokens\":%d}",
                 microseconds(length), tokens);
    end();
  };
  if (int32_t tokens = round.prefillTokens - round.mixedTokens; tokens > 0)
    add("prefill", start, round.prefillNanoseconds, tokens);
  if (round.decodeTokens > 0)
    add(round.mixedTokens > 0 ? "mixed" : "decode",
        start + round.nanoseconds - round.decodeNanoseconds,
        round.decodeNanoseconds, round.decodeTokens + round.mixedTokens);
}

/// A part of a request: asynchronous events with its number nest.
void Timeline::span(size_t item, const char *name, int64_t from, int64_t to) {
  for (bool isBegin : {true, false}) {
    if (!begin(name, isBegin ? 'b' : 'e', isBegin ? from : to, requestThread))
      return;
    std::fprintf(file.stream(), ",\"cat\":\"request\",\"id\":\"%d-%zu\"", mode,
                 item);
    end();
  }
}

void Timeline::request(size_t item, const RequestResult &result, int64_t due,
                       int64_t origin) {
  char name[128];
  std::snprintf(name, sizeof(name), "request %zu: %d + %zu tokens%s", item,
                result.promptTokens, result.tokens.size(),
                result.preemptions > 0 ? ", preempted" : "");
  span(item, name, due, result.end - origin);
  if (result.start < 0)
    return;
  span(item, "waiting", due, result.start - origin);
  if (result.firstToken < 0)
    return;
  span(item, "prefill", result.start - origin, result.firstToken - origin);
  span(item, "decode", result.firstToken - origin, result.end - origin);
}

void Timeline::unfinished(size_t item, int64_t due, int64_t firstToken,
                          int64_t end) {
  char name[64];
  std::snprintf(name, sizeof(name), "request %zu: not finished", item);
  span(item, name, due, end);
  span(item, "waiting and prefill", due, firstToken < 0 ? end : firstToken);
  if (firstToken >= 0)
    span(item, "decode", firstToken, end);
}

void Timeline::instant(const char *name, int64_t time) {
  if (!begin(name, 'i', time, roundThread))
    return;
  std::fputs(",\"s\":\"p\"", file.stream());
  end();
}

void Timeline::counters(const StatePoint &point) {
  auto time = static_cast<int64_t>(point.time * 1e9);
  if (begin("KV MiB", 'C', time, 0)) {
    std::fprintf(
        file.stream(), ",\"args\":{\"live\":%.3f,\"held, not live\":%.3f}",
        static_cast<double>(point.liveBytes) / (1 << 20),
        static_cast<double>(point.heldBytes - point.liveBytes) / (1 << 20));
    end();
  }
  if (begin("requests", 'C', time, 0)) {
    std::fprintf(file.stream(),
                 ",\"args\":{\"running\":%d,\"preempted\":%d,\"waiting\":%d}",
                 point.running, point.preempted, point.waiting);
    end();
  }
  if (begin("transfer groups", 'C', time, 0)) {
    std::fprintf(file.stream(), ",\"args\":{\"a step\":%.1f}", point.groups);
    end();
  }
}
