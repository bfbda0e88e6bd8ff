//===- MutateGraphs.cpp - A hunt for what is raised and should not be -----===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Takes decode steps that kvrm-raise-static-cache raises, changes each in a
// place or a few, and runs the pass again. Either it refuses what came out, or
// the raised step computes what the mutant does: both are executed.
//
//   kvrm-mutate-graphs [options] FILE.mlir... or FOLDER...
//
// A mutant is known by its graph, the seed and its number: with that graph
// alone,
// --only=N --output=FILE writes it. The exit status is 1 if a raised form does
// anything else than its step.
//
//===----------------------------------------------------------------------===//

#include "StepComparison.h"

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"
#include "kvrm/InitAll.h"

#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/IR/Verifier.h"
#include "mlir/InitAllDialects.h"
#include "mlir/Parser/Parser.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Pass/PassRegistry.h"
#include "mlir/Transforms/Passes.h"
#include "llvm/ADT/DenseSet.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/CommandLine.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Format.h"
#include "llvm/Support/InitLLVM.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/PrettyStackTrace.h"
#include "llvm/Support/xxhash.h"

#include <chrono>
#include <map>

using namespace mlir;
using namespace fuzz;
namespace cl = llvm::cl;

static cl::list<std::string> paths(cl::Positional, cl::OneOrMore,
                                   cl::desc("FILE or FOLDER..."));
static cl::opt<uint64_t> seed("seed", cl::desc("Of all mutants"), cl::init(1));
static cl::opt<uint64_t> count("count", cl::desc("How many mutants"),
                               cl::init(1000));
static cl::opt<uint64_t> from("from", cl::desc("Number of the first mutant"),
                              cl::init(0));
static cl::opt<int64_t> only("only", cl::desc("Make this mutant alone"),
                             cl::init(-1));
static cl::opt<std::string> output("output",
                                   cl::desc("Where --only writes the mutant"));
static cl::opt<std::string> narrow("narrow", cl::desc("As of the pass"),
                                   cl::init("f16"));
static cl::list<unsigned> causalMasks("causal-masks", cl::CommaSeparated,
                                      cl::desc("As of the pass"));
static cl::opt<std::string>
    arguments("evaluate",
              cl::desc("Arguments to execute the step of FILE on, without "
                       "mutations: float64 and int64, as they follow; --output "
                       "takes what it returns"));
static cl::opt<bool> keepSizes("keep-sizes",
                               cl::desc("Leave sizes and layers as they are"));
static cl::opt<bool> verbose("verbose", cl::desc("A line for each mutant"));

namespace {

/// A step that is raised, alone in its module.
struct Graph {
  std::string name;
  OwningOpRef<ModuleOp> module;
  std::unique_ptr<StepComparison> comparison;
};

struct Outcome {
  enum Kind : uint8_t { None, Refused, Raised } kind = None;
  std::string reason, description;
  Comparison comparison;
};

class Hunt {
public:
  explicit Hunt(MLIRContext &context);

  /// Adds the steps of a file, if they agree with their raised forms.
  bool add(const std::string &path);
  int run();

private:
  bool addFunction(func::FuncOp func, StringRef path);
  OwningOpRef<ModuleOp> prepare(func::FuncOp func);
  bool check(Graph &graph);
  OwningOpRef<ModuleOp> raise(ModuleOp module);
  OwningOpRef<ModuleOp> mutant(Graph &graph, Random &random,
                               std::string &description);
  Outcome hunt(Graph &graph, uint64_t number);
  void countOutcome(const Graph &graph, uint64_t number,
                    const Outcome &outcome);
  void printTable();

  MLIRContext &context;
  PassManager import, pass;
  std::vector<Graph> graphs;
  /// Remarks of the last pass.
  std::vector<std::string> remarks;
  bool passFailed = false;
  /// What mutants look like, so that none is counted twice.
  llvm::DenseSet<uint64_t> seen;

  uint64_t mutants = 0, refused = 0, agreeing = 0, unchanged = 0, wrong = 0;
  uint64_t notDefined = 0, notKnown = 0, notFinite = 0, healed = 0, mixing = 0;
  uint64_t leaving = 0;
  uint64_t spoiled = 0, repeated = 0;
  std::map<std::string, uint64_t> reasons;
  double slowest = 0;
  std::string slowestMutant;
};

} // namespace

static func::FuncOp functionOf(ModuleOp module) {
  return *module.getOps<func::FuncOp>().begin();
}

Hunt::Hunt(MLIRContext &context)
    : context(context), import(&context), pass(&context) {
  context.getDiagEngine().registerHandler(
      [&](Diagnostic &diagnostic) { remarks.push_back(diagnostic.str()); });
  context.printOpOnDiagnostic(false);
  std::string options = "narrow=" + narrow;
  if (!causalMasks.empty())
    options += " causal-masks=" +
               llvm::join(llvm::map_range(
                              causalMasks,
                              [](unsigned at) { return std::to_string(at); }),
                          ",");
  bool isParsed =
      succeeded(parsePassPipeline("inline,kvrm-import-graph,canonicalize,cse",
                                  import)) &&
      succeeded(
          parsePassPipeline("kvrm-raise-static-cache{" + options + "}", pass));
  if (!isParsed)
    llvm::report_fatal_error("the passes are not registered");
}

/// The raised form of a module, or none.
OwningOpRef<ModuleOp> Hunt::raise(ModuleOp module) {
  OwningOpRef<ModuleOp> raised = module.clone();
  remarks.clear();
  passFailed = failed(pass.run(*raised));
  if (passFailed ||
      !functionOf(*raised)->hasAttr(kvrm::KVRMDialect::getStepAttrName()))
    return {};
  return raised;
}

static SmallVector<Value> masksOf(func::FuncOp func) {
  return llvm::map_to_vector(causalMasks, [&](unsigned number) -> Value {
    return func.getArgument(number);
  });
}

//===----------------------------------------------------------------------===//
// Graphs
//===----------------------------------------------------------------------===//

bool Hunt::add(const std::string &path) {
  OwningOpRef<ModuleOp> module = parseSourceFile<ModuleOp>(path, &context);
  if (!module || failed(import.run(*module))) {
    llvm::errs() << path << ": " << (remarks.empty() ? "" : remarks[0]) << "\n";
    return false;
  }
  bool isRight = true;
  for (func::FuncOp func : module->getOps<func::FuncOp>())
    if (!func.isExternal())
      isRight &= addFunction(func, path);
  return isRight;
}

/// A module with a clone of `func`, with smaller sizes and fewer layers where
/// that leaves a step that is raised.
OwningOpRef<ModuleOp> Hunt::prepare(func::FuncOp func) {
  auto moduleOf = [&](func::FuncOp from) {
    OwningOpRef<ModuleOp> module = ModuleOp::create(func.getLoc());
    module->push_back(from.clone());
    return module;
  };
  OwningOpRef<ModuleOp> module = moduleOf(func);
  if (keepSizes || !raise(*module))
    return module;
  OwningOpRef<ModuleOp> smaller = moduleOf(func);
  if (shrink(functionOf(*smaller)) && raise(*smaller))
    module = std::move(smaller);
  OwningOpRef<ModuleOp> fewer = moduleOf(functionOf(*module));
  func::FuncOp cut = functionOf(*fewer);
  FailureOr<kvrm::raise::RaisableStep> step =
      kvrm::raise::analyseStep(cut, masksOf(cut));
  if (succeeded(step) && cutLayers(cut, *step, /*kept=*/2) && raise(*fewer))
    module = std::move(fewer);
  return module;
}

bool Hunt::addFunction(func::FuncOp func, StringRef path) {
  Graph graph;
  graph.name = llvm::sys::path::stem(path).str() + ":" + func.getName().str();
  graph.module = prepare(func);
  if (!raise(*graph.module)) {
    llvm::outs() << graph.name << ": refused as it is: "
                 << (remarks.empty() ? "" : remarks[0]) << "\n";
    return true;
  }
  bool isRight = check(graph);
  if (isRight)
    graphs.push_back(std::move(graph));
  return isRight;
}

/// Makes inputs; whether the step as it is agrees with its raised form.
bool Hunt::check(Graph &graph) {
  Random random(seed);
  func::FuncOp func = functionOf(*graph.module);
  FailureOr<kvrm::raise::RaisableStep> step =
      kvrm::raise::analyseStep(func, masksOf(func));
  graph.comparison = std::make_unique<StepComparison>(
      func, *step, ArrayRef<unsigned>(causalMasks), random);
  OwningOpRef<ModuleOp> raised = raise(*graph.module);
  Comparison found =
      graph.comparison->compare(func, *step, functionOf(*raised));
  bool isRight = found.agreement == Agreement::Equal && found.notFinite == 0 &&
                 !found.mixesRows;
  llvm::outs() << graph.name << ": "
               << (isRight ? "agrees with its raised form, "
                           : "DIFFERS from its raised form, ")
               << step->layers.size() << " layers, " << found.compared
               << " elements compared " << found.detail << "\n";
  return isRight;
}

//===----------------------------------------------------------------------===//
// Mutants
//===----------------------------------------------------------------------===//

/// What a function looks like: ops, attributes and who uses what.
static uint64_t hashOf(func::FuncOp func) {
  llvm::DenseMap<Value, unsigned> numbers;
  llvm::hash_code hash = 0;
  auto number = [&](Value value) {
    numbers.try_emplace(value, numbers.size());
  };
  func.walk<WalkOrder::PreOrder>([&](Operation *op) {
    for (Region &region : op->getRegions())
      for (Block &block : region)
        llvm::for_each(block.getArguments(), number);
    hash = llvm::hash_combine(hash, op->getName().getAsOpaquePointer(),
                              op->getAttrDictionary().getAsOpaquePointer());
    for (Value operand : op->getOperands())
      hash = llvm::hash_combine(hash, numbers.lookup(operand));
    llvm::for_each(op->getResults(), number);
  });
  return hash;
}

/// A mutant that verifies; none if what was changed does not.
OwningOpRef<ModuleOp> Hunt::mutant(Graph &graph, Random &random,
                                   std::string &description) {
  OwningOpRef<ModuleOp> module = graph.module->clone();
  func::FuncOp func = functionOf(*module);
  SmallVector<Value> roots;
  SmallVector<Operation *> stops;
  graph.comparison->rootsIn(func, roots, stops);
  size_t changes = random() % 4 == 0 ? 2 + random() % 2 : 1;
  for (size_t change = 0; change < changes; ++change)
    if (!mutate(func, roots, stops, random, description))
      return {};
  remarks.clear();
  if (failed(verify(*module)))
    return {};
  return module;
}

static void write(ModuleOp module, StringRef path) {
  std::error_code error;
  llvm::raw_fd_ostream os(path, error);
  if (error)
    llvm::errs() << path << ": " << error.message() << "\n";
  else
    module.print(os, OpPrintingFlags().printGenericOpForm());
}

Outcome Hunt::hunt(Graph &graph, uint64_t number) {
  Outcome outcome;
  // The same whatever other graphs there are.
  std::seed_seq seeds = {seed.getValue(), number,
                         llvm::xxh3_64bits(graph.name)};
  Random random(seeds);
  OwningOpRef<ModuleOp> module = mutant(graph, random, outcome.description);
  if (!module) {
    ++spoiled;
    return outcome;
  }
  if (!seen.insert(hashOf(functionOf(*module))).second) {
    ++repeated;
    return outcome;
  }
  if (only >= 0 && !output.empty())
    write(*module, output);
  auto begin = std::chrono::steady_clock::now();
  // What the pass begins with: most are refused here, and need no clone.
  remarks.clear();
  passFailed = false;
  func::FuncOp func = functionOf(*module);
  FailureOr<kvrm::raise::RaisableStep> step =
      kvrm::raise::analyseStep(func, masksOf(func));
  OwningOpRef<ModuleOp> raised;
  if (succeeded(step))
    raised = raise(*module);
  std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  if (took.count() > slowest) {
    slowest = took.count();
    slowestMutant = std::to_string(number) + " of " + graph.name;
  }
  if (passFailed) {
    outcome.kind = Outcome::Raised;
    outcome.comparison.agreement = Agreement::Differs;
    outcome.comparison.detail =
        "the pass fails: " + (remarks.empty() ? "" : remarks[0]);
    return outcome;
  }
  if (!raised) {
    outcome.kind = Outcome::Refused;
    outcome.reason = remarks.empty() ? "no remark" : remarks[0];
    return outcome;
  }
  outcome.kind = Outcome::Raised;
  outcome.comparison =
      graph.comparison->compare(func, *step, functionOf(*raised));
  return outcome;
}

/// The obligation of a remark, without numbers and the expression that was
/// seen.
static std::string kindOf(StringRef remark) {
  (void)remark.consume_front("not raised: ");
  std::string kind;
  for (char c : remark)
    if (!llvm::isDigit(c))
      kind += c;
    else if (kind.empty() || kind.back() != '#')
      kind += '#';
  StringRef rest = kind;
  for (StringRef end : {": ", "; ", " (", " arg#", " -", " #*", " arith.",
                        " tensor.", " linalg."})
    rest = rest.split(end).first;
  return rest.str();
}

void Hunt::countOutcome(const Graph &graph, uint64_t number,
                        const Outcome &outcome) {
  if (outcome.kind == Outcome::None)
    return;
  ++mutants;
  const Comparison &comparison = outcome.comparison;
  bool isWrong = comparison.agreement == Agreement::Differs;
  if (outcome.kind == Outcome::Refused) {
    ++refused;
    ++reasons[kindOf(outcome.reason)];
  } else {
    wrong += isWrong;
    notDefined += comparison.agreement == Agreement::Undefined;
    notKnown += comparison.agreement == Agreement::Unknown;
    if (comparison.agreement == Agreement::Equal) {
      ++(comparison.isUnchanged ? unchanged : agreeing);
      notFinite += comparison.notFinite != 0;
      healed += comparison.healed != 0;
      mixing += comparison.mixesRows;
      leaving += comparison.leavesContract;
    }
  }
  static const char *const names[] = {"agrees", "not defined", "not known",
                                      "DIFFERS"};
  bool isRaised = outcome.kind == Outcome::Raised;
  if (verbose || only >= 0 || isWrong ||
      comparison.agreement == Agreement::Unknown)
    llvm::outs() << number << " " << graph.name << ": " << outcome.description
                 << ": "
                 << (isRaised ? names[static_cast<int>(comparison.agreement)]
                              : "refused")
                 << (isRaised && comparison.isUnchanged ? ", unchanged" : "")
                 << (comparison.mixesRows ? ", mixes rows" : "")
                 << (comparison.healed      ? ", finite when raised"
                     : comparison.notFinite ? ", not finite"
                                            : "")
                 << ": " << (isRaised ? comparison.detail : outcome.reason)
                 << "\n";
  llvm::outs().flush();
}

void Hunt::printTable() {
  auto line = [](StringRef what, uint64_t number) {
    llvm::outs() << llvm::format("%9llu",
                                 static_cast<unsigned long long>(number))
                 << "  " << what << "\n";
  };
  line("mutants that verify, no two alike", mutants);
  line("refused", refused);
  line("raised, and what they do agrees", agreeing);
  line("raised, unchanged in what they do, and agrees", unchanged);
  line("raised, and nowhere defined or in the contract", notDefined);
  line("raised, with an op that is not known", notKnown);
  line("DISAGREE", wrong);
  llvm::outs() << "of those that agree\n";
  line("not finite in places, which were left out", notFinite);
  line("of these, finite in places when raised", healed);
  line("leave the contract at some positions, which were left out", leaving);
  line("mix rows, and are compared at common positions alone", mixing);
  llvm::outs() << "refused, by what was not proved\n";
  std::vector<std::pair<uint64_t, std::string>> sorted;
  for (const auto &[reason, number] : reasons)
    sorted.emplace_back(number, reason);
  llvm::sort(sorted, std::greater<>());
  for (const auto &[number, reason] : sorted)
    line(reason, number);
  llvm::outs() << "the slowest pass took " << llvm::format("%.2f", slowest)
               << " s, on mutant " << slowestMutant << "; of others " << spoiled
               << " did not verify and " << repeated << " were seen before\n";
}

int Hunt::run() {
  if (graphs.empty()) {
    llvm::errs() << "no graph is raised\n";
    return 1;
  }
  uint64_t begin = only >= 0 ? static_cast<uint64_t>(only) : from.getValue();
  for (uint64_t number = begin; mutants < count; ++number) {
    for (Graph &graph : graphs) {
      llvm::PrettyStackTraceFormat trace(
          "mutant %llu of %s, seed %llu",
          static_cast<unsigned long long>(number), graph.name.c_str(),
          static_cast<unsigned long long>(seed));
      countOutcome(graph, number, hunt(graph, number));
    }
    if (only >= 0)
      break;
    if (number % 100 == 99)
      llvm::errs() << mutants << " mutants, " << refused << " refused, "
                   << agreeing << " agree, " << unchanged << " unchanged, "
                   << notDefined << " not defined, " << wrong << " disagree\n";
  }
  printTable();
  return wrong + notKnown != 0;
}

/// Executes the one function of a file on the arguments of another.
static int evaluate(MLIRContext &context, const std::string &path) {
  OwningOpRef<ModuleOp> module = parseSourceFile<ModuleOp>(path, &context);
  auto buffer = llvm::MemoryBuffer::getFile(arguments);
  if (!module || !buffer)
    return 1;
  func::FuncOp func = functionOf(*module);
  StringRef bytes = (*buffer)->getBuffer();
  std::vector<TensorRef> inputs;
  for (Type type : func.getArgumentTypes()) {
    auto tensor = std::make_shared<Tensor>(tensorOf(type));
    size_t size = tensor->elements.size() * sizeof(Scalar);
    if (bytes.size() < size)
      return 1;
    std::memcpy(tensor->elements.data(), bytes.data(), size);
    bytes = bytes.drop_front(size);
    inputs.push_back(std::move(tensor));
  }
  GraphInterpreter interpreter(func, /*precision=*/0);
  std::vector<TensorRef> results = interpreter.run(inputs);
  std::error_code error;
  llvm::raw_fd_ostream os(output, error);
  if (error || results.empty()) {
    llvm::errs() << interpreter.getProblem() << error.message() << "\n";
    return 1;
  }
  for (const TensorRef &result : results)
    os.write(reinterpret_cast<const char *>(result->elements.data()),
             result->elements.size() * sizeof(Scalar));
  return 0;
}

/// Files, those of folders in order.
static std::vector<std::string> filesOf(const cl::list<std::string> &given) {
  std::vector<std::string> files;
  for (const std::string &path : given) {
    if (!llvm::sys::fs::is_directory(path)) {
      files.push_back(path);
      continue;
    }
    std::error_code error;
    size_t before = files.size();
    for (llvm::sys::fs::directory_iterator at(path, error), end;
         at != end && !error; at.increment(error))
      if (llvm::sys::path::extension(at->path()) == ".mlir")
        files.push_back(at->path());
    std::sort(files.begin() + static_cast<ptrdiff_t>(before), files.end());
  }
  return files;
}

int main(int argc, char **argv) {
  llvm::InitLLVM init(argc, argv);
  cl::ParseCommandLineOptions(argc, argv,
                              "Mutants of decode steps, raised or refused\n");
  DialectRegistry registry;
  registerAllDialects(registry);
  mlir::kvrm::registerAllKVRMDialects(registry);
  mlir::kvrm::registerAllKVRMPasses();
  registerTransformsPasses();
  MLIRContext context(registry, MLIRContext::Threading::DISABLED);
  if (!arguments.empty())
    return evaluate(context, paths.front());
  Hunt hunt(context);
  bool isRight = true;
  for (const std::string &path : filesOf(paths))
    isRight &= hunt.add(path);
  return isRight ? hunt.run() : 1;
}
