//===- ServiceTest.cpp - Tests of the server ------------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The server over sockets, with the simulated decoder behind it.
//
//===----------------------------------------------------------------------===//

#include "serve/Service.h"
#include "LogprobsReference.h"
#include "PacedDecoder.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <sys/socket.h>

using namespace kvrm;
using namespace kvrm::serve;
using namespace std::chrono;
using nlohmann::json;

namespace {

/// A connection to the server, with what has come.
class Client {
public:
  explicit Client(int32_t port, int receiveBytes = 0)
      : socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    if (receiveBytes > 0)
      ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVBUF, &receiveBytes,
                   sizeof(receiveBytes));
    timeval limit = {10, 0};
    ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(socket.get(), reinterpret_cast<sockaddr *>(&address),
                        sizeof(address)),
              0);
  }

  void send(std::string_view bytes) const {
    while (!bytes.empty()) {
      ssize_t sent =
          ::send(socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0)
        return;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
  }
  void post(const char *path, const json &body) const {
    std::string text = body.dump();
    send("POST " + std::string(path) +
         " HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
         "Content-Length: " +
         std::to_string(text.size()) + "\r\n\r\n" + text);
  }
  void endSending() const { ::shutdown(socket.get(), SHUT_WR); }

  /// Reads until `mark` has come, or the end. Returns what was read with it.
  std::string until(std::string_view mark) {
    size_t at = std::string::npos;
    while ((at = got.find(mark)) == std::string::npos)
      if (!receive())
        return std::exchange(got, {});
    std::string taken = got.substr(0, at + mark.size());
    got.erase(0, taken.size());
    return taken;
  }
  std::string rest() { return until(std::string_view("\0none", 5)); }

  /// Head and body of an answer that says its length.
  std::pair<std::string, std::string> answer() {
    std::string head = until("\r\n\r\n");
    const std::string field = "Content-Length: ";
    size_t at = head.find(field);
    EXPECT_NE(at, std::string::npos) << head;
    if (at == std::string::npos)
      return {head, ""};
    size_t length = std::stoul(head.substr(at + field.size()));
    while (got.size() < length && receive()) {
    }
    std::string body = got.substr(0, length);
    got.erase(0, body.size());
    return {head, body};
  }

private:
  bool receive() {
    std::array<char, 4096> bytes;
    ssize_t count = ::recv(socket.get(), bytes.data(), bytes.size(), 0);
    got.append(bytes.data(), static_cast<size_t>(std::max<ssize_t>(count, 0)));
    return count > 0;
  }

  Descriptor socket;
  std::string got;
};

class ServiceTest : public testing::Test {
protected:
  void SetUp() override {
    config.port = 0;
    config.limits.request = milliseconds(5000);
    served.model = "m";
  }
  void start() {
    Expected<std::unique_ptr<EngineThread>> started =
        EngineThread::start(pace.maker(), engineConfig, metrics);
    ASSERT_TRUE(started) << started.status().message();
    engine = started.take();
    service = std::make_unique<Service>(served, *engine, metrics);
    Expected<std::unique_ptr<HttpServer>> listening =
        HttpServer::start(config, *service);
    ASSERT_TRUE(listening) << listening.status().message();
    server = listening.take();
  }

  static json request(std::vector<int32_t> prompt, int32_t most) {
    return {{"prompt", std::move(prompt)},
            {"max_tokens", most},
            {"temperature", 0},
            {"ignore_eos", true},
            {"return_token_ids", true}};
  }
  static json streamed(json body) {
    body["stream"] = true;
    return body;
  }
  static std::vector<int32_t> tokensOf(const std::string &body) {
    return json::parse(body)["choices"][0]["token_ids"];
  }
  /// Of the events of a stream, chunks and all.
  static std::vector<int32_t> streamedTokens(std::string_view stream) {
    std::vector<int32_t> tokens;
    constexpr std::string_view mark = "data: {";
    for (size_t at = stream.find(mark); at != stream.npos;
         at = stream.find(mark, at + 1)) {
      std::string_view event = stream.substr(at + 6);
      std::vector<int32_t> some =
          tokensOf(std::string(event.substr(0, event.find("\n\n"))));
      tokens.insert(tokens.end(), some.begin(), some.end());
    }
    return tokens;
  }

  Client client() { return Client(server->port()); }
  /// The answer to some bytes after which the server closes.
  std::string answerTo(const std::string &bytes) {
    Client one = client();
    one.send(bytes);
    return one.rest();
  }
  bool comesToRest() {
    return comes([&] {
      EngineState state = engine->state();
      return state.waiting == 0 && state.stats.running == 0 &&
             state.freePages == state.pages;
    });
  }
  /// Whether so many requests end so; a client may know before they are
  /// counted.
  bool counts(const std::string &outcome, int64_t count) {
    return comes([&] { return counted(outcome) == count; });
  }
  int64_t counted(const std::string &outcome) {
    std::string text = metrics.text(engine->state(), 0);
    const std::string name =
        "kvrm_requests_total{outcome=\"" + outcome + "\"} ";
    return std::stoll(text.substr(text.find(name) + name.size()));
  }

  Pace pace;
  EngineConfig engineConfig;
  HttpServerConfig config;
  Served served;
  Metrics metrics;
  std::unique_ptr<EngineThread> engine;
  std::unique_ptr<Service> service;
  std::unique_ptr<HttpServer> server; ///< goes first
};

} // namespace

TEST_F(ServiceTest, StreamsOfManyClientsAreTheirOwn) {
  pace.shape.stepsAhead = 1; // as on a GPU
  start();
  std::vector<std::thread> clients;
  for (int32_t number = 0; number < 16; ++number)
    clients.emplace_back([&, number] {
      Client one = client();
      for (int32_t i = 0; i < 10; ++i) {
        const std::vector<int32_t> prompt = {number, i};
        int32_t most = 1 + (number * i) % 30;
        bool isStreamed = (number + i) % 2 == 0;
        json body = request(prompt, most);
        one.post("/v1/completions", isStreamed ? streamed(body) : body);
        std::vector<int32_t> tokens =
            isStreamed ? streamedTokens(one.until("0\r\n\r\n"))
                       : tokensOf(one.answer().second);
        EXPECT_EQ(tokens, Pace::follow(prompt, most));
      }
    });
  for (std::thread &one : clients)
    one.join();
  EXPECT_TRUE(counts("length", 160));
  EXPECT_TRUE(comesToRest());
}

TEST_F(ServiceTest, RequestsMayComeBeforeTheirTurn) {
  start();
  Client one = client();
  for (int32_t i = 0; i < 5; ++i)
    one.post("/v1/completions", request({i}, 3));
  for (int32_t i = 0; i < 5; ++i)
    EXPECT_EQ(tokensOf(one.answer().second), Pace::follow({i}, 3));
}

TEST_F(ServiceTest, OldClientsAreToldByTheEnd) {
  start();
  std::string body = streamed(request({1, 2}, 5)).dump();
  std::string answer = answerTo(
      "POST /v1/completions HTTP/1.0\r\nContent-Type: application/json\r\n"
      "Content-Length: " +
      std::to_string(body.size()) + "\r\n\r\n" + body);
  EXPECT_EQ(streamedTokens(answer), Pace::follow({1, 2}, 5));
  EXPECT_TRUE(answer.ends_with("data: [DONE]\n\n")) << answer;
  EXPECT_EQ(answer.find("chunked"), std::string::npos);
}

TEST_F(ServiceTest, EveryPageSaysWhatItIs) {
  start();
  Client one = client();
  auto ask = [&](const std::string &line) {
    one.send(line + " HTTP/1.1\r\nHost: h\r\n\r\n");
    return one.answer();
  };
  EXPECT_EQ(ask("GET /health").second, "{\"status\":\"ok\"}\n");
  EXPECT_EQ(json::parse(ask("GET /v1/models").second)["data"][0]["id"], "m");
  EXPECT_EQ(json::parse(ask("GET /v1/models/m").second)["id"], "m");
  EXPECT_NE(ask("GET /metrics").second.find("kvrm_connections 1\n"),
            std::string::npos);
  auto [head, page] = ask("GET /");
  EXPECT_NE(head.find("text/html"), std::string::npos);
  EXPECT_NE(page.find("</html>"), std::string::npos);
  EXPECT_NE(ask("GET /nowhere").first.find("404 Not Found"), std::string::npos);
  head = ask("DELETE /health").first;
  EXPECT_NE(head.find("405 Method Not Allowed"), std::string::npos);
  EXPECT_NE(head.find("Allow: GET, HEAD"), std::string::npos);
  one.send("HEAD /health HTTP/1.1\r\nHost: h\r\n\r\n"
           "GET http://h/health?a HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_NE(one.until("\r\n\r\n").find("Content-Length: 16"),
            std::string::npos);
  EXPECT_EQ(one.answer().second, "{\"status\":\"ok\"}\n");
}

/// Tokens of the simulated decoder: 25 letters, and 25 pairs of them.
static Tokenizer makeLetters() {
  json vocabulary = json::object();
  for (int32_t i = 0; i < 25; ++i) {
    const char letter = static_cast<char>('a' + i);
    vocabulary[std::string(1, letter)] = i;
    vocabulary[std::string{static_cast<char>('a' + i % 3), letter}] = 25 + i;
  }
  json root = {
      {"model",
       {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", json::array()}}},
      {"pre_tokenizer", {{"pattern", json::array()}}}};
  Expected<Tokenizer> made = Tokenizer::parse(root.dump(), "letters.json");
  EXPECT_TRUE(made) << made.status().message();
  return made.take();
}

/// The lists of an answer's log probabilities, or of all events of a stream.
static json joinedLogprobs(std::string_view answer) {
  json joined = json::object();
  constexpr std::string_view mark = "\"logprobs\":{";
  for (size_t at = answer.find(mark); at != answer.npos;
       at = answer.find(mark, at + 1)) {
    std::string_view from = answer.substr(at + mark.size() - 1);
    // No text in it has a brace.
    size_t end = 0;
    for (int depth = 0; end == 0 || depth > 0; ++end)
      depth += (from[end] == '{') - (from[end] == '}');
    const json lists = json::parse(from.substr(0, end));
    for (const auto &[name, list] : lists.items())
      for (const json &entry : list)
        joined[name].push_back(entry);
  }
  return joined;
}

/// Of every token whose text begins before the stop text, and of no other.
TEST_F(ServiceTest, LogprobsAreOfTheTokensThatAreShown) {
  Tokenizer letters = makeLetters();
  served.tokenizer = &letters;
  pace.shape.stepsAhead = 1;
  start();
  Client one = client();
  simulation::Random random(3);
  for (int32_t i = 0; i < 60; ++i) {
    const std::vector<int32_t> prompt = {i % 50, i / 3, 40};
    std::vector<int32_t> tokens = Pace::follow(prompt, 12);
    const std::string all = letters.decode(tokens);
    json body = request(prompt, 12);
    body["logprobs"] = i % 6;
    size_t cut = all.size();
    if (i % 4 > 0) {
      auto place = static_cast<size_t>(random.below(int32_t(all.size())));
      std::string stop = all.substr(place, static_cast<size_t>(1 + i % 4));
      body["stop"] = stop;
      cut = all.find(stop);
    }
    one.post("/v1/completions", body);
    const std::string whole = one.answer().second;
    EXPECT_EQ(json::parse(whole)["choices"][0]["text"], all.substr(0, cut));
    one.post("/v1/completions", streamed(body));
    const json got = joinedLogprobs(whole);
    EXPECT_EQ(joinedLogprobs(one.until("0\r\n\r\n")), got);

    std::vector<int32_t> history = prompt;
    size_t offset = 0;
    size_t shown = 0;
    for (; shown < tokens.size() && offset < cut; ++shown) {
      int32_t token = tokens[shown];
      TokenLogprobs want = reference::logprobsOf(
          simulation::SimulatedDecoder::logitsAfter(history, 50), token, i % 6);
      ASSERT_LT(shown, got.value("tokens", json::array()).size()) << whole;
      const std::string text(letters.bytesOf(token));
      EXPECT_EQ(got["tokens"][shown], text);
      EXPECT_NEAR(got["token_logprobs"][shown].get<double>(), want.logprob,
                  1e-12);
      EXPECT_EQ(got["text_offset"][shown],
                letters.decode(prompt).size() + offset);
      const json &top = got["top_logprobs"][shown];
      EXPECT_EQ(top.size(), std::max<size_t>(want.likeliest.size(), 1));
      EXPECT_TRUE(top.contains(text));
      for (const TokenLogprob &each : want.likeliest)
        EXPECT_NEAR(
            top.value(std::string(letters.bytesOf(each.token)), double(NAN)),
            each.logprob, 1e-12);
      offset += text.size();
      history.push_back(token);
    }
    EXPECT_EQ(got.value("tokens", json::array()).size(), shown) << body;
  }
}

TEST_F(ServiceTest, RefusalsAreOfTheApisForm) {
  start();
  Client one = client();
  one.post("/v1/completions", {{"prompt", {1}}, {"echo", true}});
  auto [head, body] = one.answer();
  EXPECT_NE(head.find("400 Bad Request"), std::string::npos);
  EXPECT_EQ(json::parse(body), json::parse(R"({"error": {
              "message": "echo: is not supported, but for false",
              "type": "invalid_request_error", "param": "echo",
              "code": "unsupported_parameter"}})"));
  one.post("/v1/completions", {{"prompt", {1}}, {"model", "other"}});
  EXPECT_EQ(json::parse(one.answer().second)["error"]["code"],
            "model_not_found");
  one.post("/v1/chat/completions",
           {{"messages", {{{"role", "user"}, {"content", "a"}}}}});
  EXPECT_EQ(json::parse(one.answer().second)["error"]["param"], "messages");
  EXPECT_TRUE(counts("invalid", 3));
}

TEST_F(ServiceTest, LimitsOfAConnection) {
  config.limits.request = milliseconds(100);
  config.limits.http = {/*headerBytes=*/1000, /*bodyBytes=*/1000};
  start();
  EXPECT_EQ(answerTo(""), ""); // waited for in vain
  EXPECT_NE(answerTo("GET / HT").find("408 Request Timeout"),
            std::string::npos);
  EXPECT_NE(answerTo("GET / HTTP/1.1\r\nA: " + std::string(2000, 'a'))
                .find("431 Request Header Fields Too Large"),
            std::string::npos);
  EXPECT_NE(
      answerTo("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n" +
               std::string(1001, 'a'))
          .find("413 Payload Too Large"),
      std::string::npos);
  EXPECT_NE(answerTo("nonsense\r\n\r\n").find("400 Bad Request"),
            std::string::npos);
}

TEST_F(ServiceTest, ConnectionsHaveALimit) {
  config.connections = 3;
  start();
  std::vector<Client> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(client());
    clients.back().send("GET /health HTTP/1.1\r\nHost: h\r\n\r\n");
    clients.back().answer();
  }
  EXPECT_NE(answerTo("").find("503 Service Unavailable"), std::string::npos);
  clients.pop_back();
  EXPECT_TRUE(comes([&] {
    return answerTo("GET /health HTTP/1.0\r\n\r\n").find("200 OK") !=
           std::string::npos;
  }));
}

TEST_F(ServiceTest, AFullQueueSaysWhenToComeAgain) {
  engineConfig.queueLimit = 1;
  start();
  pace.stepMicroseconds = 2000;
  std::vector<Client> clients;
  for (int i = 0; i < 5; ++i) { // four run and one waits
    clients.push_back(client());
    clients.back().post("/v1/completions", request({1}, 3000));
    ASSERT_TRUE(comes([&] {
      EngineState state = engine->state();
      return state.stats.running == std::min(i + 1, 4) &&
             state.waiting == i / 4;
    }));
  }
  Client late = client();
  late.post("/v1/completions", request({1}, 1));
  std::string head = late.answer().first;
  EXPECT_NE(head.find("429 Too Many Requests"), std::string::npos) << head;
  EXPECT_NE(head.find("Retry-After: 1"), std::string::npos) << head;
  clients.clear();
  EXPECT_TRUE(comesToRest());
  EXPECT_TRUE(counts("client_gone", 5));
  EXPECT_TRUE(counts("queue_full", 1));
}

TEST_F(ServiceTest, AClientThatGoesFreesItsSlot) {
  start();
  pace.stepMicroseconds = 1000;
  for (const json &body : {request({1}, 3000), streamed(request({1}, 3000))}) {
    Client one = client();
    one.post("/v1/completions", body);
    ASSERT_TRUE(comes([&] { return engine->state().stats.running == 1; }));
    one = client();
    EXPECT_TRUE(comesToRest());
  }
  EXPECT_TRUE(counts("client_gone", 2));
}

TEST_F(ServiceTest, AClientMayOnlyEndItsSending) {
  start();
  pace.stepMicroseconds = 1000;
  const std::vector<int32_t> tokens = Pace::follow({1}, 100);
  for (bool isStreamed : {false, true}) {
    Client one = client();
    json body = request({1}, 100);
    one.post("/v1/completions", isStreamed ? streamed(body) : body);
    ASSERT_TRUE(comes([&] { return engine->state().stats.running == 1; }));
    one.endSending();
    if (!isStreamed) {
      EXPECT_EQ(one.until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    }
    EXPECT_EQ(isStreamed ? streamedTokens(one.rest())
                         : tokensOf(one.answer().second),
              tokens);
  }
  EXPECT_TRUE(counts("length", 2));
  Client cut = client();
  cut.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n{");
  cut.endSending();
  EXPECT_NE(cut.rest().find("400 Bad Request"), std::string::npos);
}

TEST_F(ServiceTest, WhatWasNotAnsweredIsNoResponse) {
  start();
  pace.stepMicroseconds = 1000;
  {
    Client one = client();
    one.send("GET /health HTTP/1.1\r\nHost: h\r\n\r\n");
    one.answer();
    one.post("/v1/completions", request({1}, 3000));
    ASSERT_TRUE(comes([&] { return engine->state().stats.running == 1; }));
  }
  EXPECT_TRUE(counts("client_gone", 1));
  EXPECT_TRUE(server->waitUntilQuiet(seconds(10)));
  EXPECT_NE(metrics.text(engine->state(), 0)
                .find("kvrm_http_responses_total{code=\"200\"} 1\n"),
            std::string::npos);
}

TEST_F(ServiceTest, AReaderTooSlowIsCutOff) {
  config.limits.write = milliseconds(200);
  start();
  Client slow(server->port(), /*receiveBytes=*/2048);
  for (int i = 0; i < 60; ++i)
    slow.post("/v1/completions", streamed(request({1}, 3000)));
  EXPECT_TRUE(counts("slow_reader", 1));
  EXPECT_TRUE(comesToRest());
}

TEST_F(ServiceTest, StepsThatFailAreTheServersError) {
  start();
  pace.fails = true;
  Client one = client();
  one.post("/v1/completions", request({1}, 5));
  auto [head, body] = one.answer();
  EXPECT_NE(head.find("500 Internal Server Error"), std::string::npos);
  EXPECT_EQ(json::parse(body)["error"]["message"], "the step failed");
  EXPECT_NE(answerTo("GET /health HTTP/1.0\r\n\r\n").find("\"failing\""),
            std::string::npos);
}

TEST_F(ServiceTest, DrainingEndsWhatRunsAndRefusesTheRest) {
  start();
  pace.stepMicroseconds = 1000;
  Client idle = client();
  idle.send("GET /health HTTP/1.1\r\nHost: h\r\n\r\n");
  idle.answer();
  Client running = client();
  running.post("/v1/completions", streamed(request({1, 2}, 100)));
  running.until("data: ");
  service->drain();
  server->drain();
  EXPECT_EQ(idle.rest(), "");
  EXPECT_NE(
      answerTo("GET /health HTTP/1.1\r\nHost: h\r\n\r\n").find("\"draining\""),
      std::string::npos);
  Client late = client();
  late.post("/v1/completions", request({1}, 1));
  EXPECT_NE(late.answer().first.find("503 Service Unavailable"),
            std::string::npos);
  EXPECT_TRUE(running.rest().ends_with("data: [DONE]\n\n\r\n0\r\n\r\n"));
  EXPECT_TRUE(server->waitUntilQuiet(seconds(10)));
  EXPECT_TRUE(counts("length", 1));
  EXPECT_TRUE(counts("draining", 1));
}

TEST_F(ServiceTest, WhatIsCutOffIsTold) {
  start();
  pace.stepMicroseconds = 1000;
  Client whole = client();
  whole.post("/v1/completions", request({1, 2}, 3000));
  Client pieces = client();
  pieces.post("/v1/completions", streamed(request({1, 2}, 3000)));
  pieces.until("data: ");
  ASSERT_TRUE(comes([&] { return engine->state().stats.running == 2; }));
  EXPECT_FALSE(server->waitUntilQuiet(milliseconds(1)));
  engine->stop();
  EXPECT_TRUE(server->waitUntilQuiet(seconds(10)));
  EXPECT_NE(whole.answer().second.find("the server is stopping"),
            std::string::npos);
  std::string rest = pieces.until("0\r\n\r\n");
  EXPECT_NE(rest.find("the server is stopping"), std::string::npos);
  EXPECT_EQ(rest.find("[DONE]"), std::string::npos);
}

TEST_F(ServiceTest, AnEndInTheMiddleOfAllIsClean) {
  start();
  pace.stepMicroseconds = 1000;
  std::vector<Client> clients;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(client());
    clients.back().post("/v1/completions", streamed(request({1}, 3000)));
  }
  server.reset();
  service.reset();
  engine.reset();
}
