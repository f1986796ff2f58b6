// plait stream: endless texts, each through one stream.
#include <poll.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <filesystem>
#include <set>

#include "runtime/base/error.h"
#include "tools/program.h"
#include "tools/stream/session.h"
#include "tools/verbs.h"
#include "tools/within.h"
#include "weights/snapshot_file.h"
#include "weights/temporary_file.h"

namespace plait {
namespace {

constexpr Index kRows = 512;            // of all streams together in one run
constexpr int kIdleMilliseconds = 100;  // between two looks at files that grow

volatile std::sig_atomic_t stop_asked = 0;

extern "C" void ask_to_stop(int) {
  if (stop_asked) {  // once more: at once
    remove_temporary_files();
    _exit(kInterrupted);
  }
  stop_asked = 1;
}

struct StreamVerb {
  Common common;
  std::string model, load, save, journal, per_token, health, out, edits;
  std::vector<std::string> inputs = {"-"};
  Index every = 65536, sinks = 0;
  std::optional<Index> window;
  std::uint64_t keep = 0;
  bool follow = false, resume = false, no_special = false;

  int run() const;

 private:
  void check_names() const;
};

// An input's files where several share a folder.
stream::Outputs outputs_in(const std::string& folder, const std::string& input) {
  const auto path = std::filesystem::path(folder) /
                    (input == "-" ? "stdin" : std::filesystem::path(input).filename().string());
  return {path.string() + ".snapshot.h5", path.string() + ".journal", path.string() + ".h5",
          path.string() + ".health.jsonl"};
}

struct Running {
  std::unique_ptr<stream::Session> session;
  std::string failure = {};  // why it ended early
  bool finished = false;
  bool open() const { return failure.empty() && !session->ended(); }
};

class Streams {
 public:
  Streams(const StreamVerb& args, std::shared_ptr<const Model> model)
      : args_(args), model_(std::move(model)) {
    settings_.options.compute = args.common.compute(Numerics::exact);
    settings_.options.keep = args.keep;
    settings_.options.edits = read_edits(args.edits, args.window, args.sinks, *model_);
    settings_.every = round_up(args.every, model_->boundary());
    settings_.resume = args.resume;
  }

  void open() {
    const auto tokenizer = tokenizer_of(*model_);
    std::optional<Snapshot> begin;
    if (!args_.load.empty()) {
      begin = load_snapshot(args_.load);
      settings_.options.compute = compute_of(*begin, args_.load, args_.common);
      try {  // what does not fit is said before any file is made
        Stream::restore(model_, *begin, settings_.options);
      } catch (const Error& error) {
        fail("'", args_.load, "': ", error.what());
      }
    }
    std::error_code error;
    if (!args_.out.empty() && !std::filesystem::create_directories(args_.out, error) && error)
      fail("cannot make the folder '", args_.out, "': ", error.message());
    for (const std::string& path : args_.inputs) {
      // A text that goes on from another one does not begin.
      const Specials specials = args_.no_special || begin ? Specials::without : Specials::with;
      auto input = std::make_unique<stream::Input>(
          path, stream::TextPieces(tokenizer, specials),
          args_.follow ? stream::Input::AtEnd::follow : stream::Input::AtEnd::finish);
      const stream::Outputs outputs =
          args_.out.empty() ? stream::Outputs{args_.save, args_.journal, args_.per_token, args_.health}
                            : outputs_in(args_.out, path);
      all_.push_back({std::make_unique<stream::Session>(model_, settings_, std::move(input), outputs,
                                                        begin ? &*begin : nullptr)});
    }
  }

  // Until every input has ended, or somebody asked to stop.
  void run() {
    while (!stop_asked) {
      bool recognised = false;
      for (Running& running : all_)
        if (running.open()) guard(running, [&] { recognised |= running.session->poll(); });
      if (std::none_of(all_.begin(), all_.end(), [](const Running& r) { return r.open(); })) break;
      if (!step() && !recognised) wait();
      for (Running& running : all_)
        if (!running.open()) finish(running);
    }
    for (Running& running : all_) finish(running);
    seconds_ = watch_.seconds();
  }

  int report() const;

 private:
  // A failure of one session is no other session's matter.
  template <class F>
  void guard(Running& running, F&& f) {
    try {
      f();
    } catch (const Error& error) {
      running.failure = error.what();
      if (all_.size() > 1)
        note(args_.common, cat("input '", running.session->input().path(), "' ends here: ", error.what()));
    }
  }

  void finish(Running& running) {
    if (running.finished || !running.failure.empty()) return;
    running.finished = true;
    guard(running, [&] { running.session->finish(); });
  }

  // One run of what is ready, shared fairly; false if nothing is.
  bool step() {
    std::vector<Running*> ready;
    for (Running& running : all_)
      if (running.open() && running.session->ready() > 0) ready.push_back(&running);
    if (ready.empty()) return false;
    const Index share = std::max<Index>(kRows / static_cast<Index>(ready.size()), 1);
    std::vector<Item> items;
    std::vector<Running*> in;
    for (Running* running : ready)
      guard(*running, [&] {
        items.push_back(running->session->begin(std::min(running->session->ready(), share)));
        in.push_back(running);
      });
    run_batch(*model_, items, {settings_.options.compute},
              [&](std::size_t i, Index position, std::span<const float> logits) {
                in[i]->session->see(position, logits);
              });
    for (Running* running : in) guard(*running, [&] { running->session->end(); });
    for (const Item& item : items) tokens_ += static_cast<Index>(item.tokens.size());
    if (args_.common.memory == 0) return true;
    std::size_t bytes = 0;
    for (const Running& running : all_) bytes += running.session->bytes();
    check_budget(args_.common, *model_, bytes);
    return true;
  }

  // Until a pipe has something, for a moment at most: files that grow cannot be waited for.
  void wait() {
    std::vector<pollfd> files;
    for (const Running& running : all_)
      if (running.open() && running.session->input().descriptor() >= 0)
        files.push_back({running.session->input().descriptor(), POLLIN, 0});
    ::poll(files.data(), files.size(), kIdleMilliseconds);
  }

  const StreamVerb& args_;
  std::shared_ptr<const Model> model_;
  stream::SessionSettings settings_;
  std::vector<Running> all_;
  Index tokens_ = 0;
  Stopwatch watch_;
  double seconds_ = 0;
};

int Streams::report() const {
  Json inputs = Json::array();
  std::vector<std::vector<std::string>> rows = {
      {"INPUT", "TOKENS", "NATS/TOKEN", "TOP-1 %", "STATE", "ENDED"}};
  const Running* failed = nullptr;
  std::size_t failures = 0;
  for (const Running& running : all_) {
    const std::string how = !running.failure.empty()   ? "failed"
                            : running.session->ended() ? "end"
                                                       : "stopped";
    if (!running.failure.empty() && ++failures == 1) failed = &running;
    Json json = running.session->report();
    rows.push_back({running.session->input().path(), json["tokens"].dump(),
                    json["nll"].is_null() ? "-" : fixed(json["nll"].get<double>(), 5),
                    json["top1"].is_null() ? "-" : fixed(100 * json["top1"].get<double>(), 2),
                    human_bytes(json["state_bytes"].get<double>()), how});
    json["ended"] = how;
    if (!running.failure.empty()) json["failure"] = running.failure;
    inputs.push_back(std::move(json));
  }
  if (failures == 1 && all_.size() == 1) fail(failed->failure);
  const double rate = seconds_ > 0 ? static_cast<double>(tokens_) / seconds_ : 0;
  if (!args_.common.json_only()) print(table(rows, "lrrrrl"));
  flush_output();
  const Compute& compute = settings_.options.compute;
  Json edits = Json::array();
  for (const Edit& edit : settings_.options.edits) edits.push_back(to_json(edit));
  write_json(args_.common, {{"model", model_->card().name},
                            {"model_sha256", model_->digest()},
                            {"file", args_.model},
                            {"inputs", std::move(inputs)},
                            {"edits", std::move(edits)},
                            {"every", settings_.every},
                            {"special", !args_.no_special},
                            {"numerics", name_of(compute.numerics)},
                            {"isa", name_of(compute.isa)},
                            {"threads", compute.threads},
                            {"arithmetic", arithmetic(model_->card(), compute)},
                            {"seconds", seconds_},
                            {"tokens_per_second", rate}});
  note(args_.common, cat(tokens_, " tokens in ", fixed(seconds_, 2), " s, ", fixed(rate, 0), " tokens/s"));
  if (failures > 0)
    fail(failures, " of ", all_.size(), " inputs ended early, '", failed->session->input().path(),
         "' because of this: ", failed->failure);
  return stop_asked ? kInterrupted : kDone;
}

// Each file has one part: read or written, by one stream.
void StreamVerb::check_names() const {
  const auto real = [](const std::string& path) {
    std::error_code error;
    const auto full = std::filesystem::weakly_canonical(std::filesystem::absolute(path), error);
    return error ? path : full.string();
  };
  std::set<std::string> names, read, written;
  for (const std::string& path : inputs)
    if (!names.insert(out.empty() ? path : outputs_in(out, path).journal).second)
      throw UsageError(cat("two inputs are called '", path, "'"));
  for (const std::string& path : inputs)
    if (path != "-") read.insert(real(path));
  for (const std::string& path : {model, load, edits})
    if (!path.empty()) read.insert(real(path));
  for (const std::string& input : inputs) {
    const stream::Outputs files = stream::with_journal(
        out.empty() ? stream::Outputs{save, journal, per_token, health} : outputs_in(out, input));
    for (const std::string& path : {files.save, files.journal, files.per_token, files.health}) {
      if (path.empty()) continue;
      if (read.contains(real(path))) throw UsageError(cat("'", path, "' would be read and written"));
      if (!written.insert(real(path)).second)
        throw UsageError(cat("'", path, "' is the name of two outputs"));
    }
    if (out.empty()) break;
  }
}

int StreamVerb::run() const {
  if (inputs.size() > 1 && out.empty() &&
      !(save.empty() && journal.empty() && per_token.empty() && health.empty()))
    throw UsageError("several inputs have files of their own; give them a folder with --out");
  if (!out.empty() && !(save.empty() && journal.empty() && per_token.empty() && health.empty()))
    throw UsageError(
        "--out names all files of an input; it does not go with --save, --journal, --per-token, --health");
  if (resume && out.empty() && save.empty() && journal.empty() && per_token.empty())
    throw UsageError("--resume goes on with what --save, --journal, --per-token or --out name");
  check_names();
  Streams streams(*this, open_model(model.empty() ? bundled_model() : model, common));
  streams.open();
  struct sigaction action = {};
  action.sa_handler = ask_to_stop;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  streams.run();
  return streams.report();
}

}  // namespace

void add_stream(CLI::App& program, Action& chosen) {
  auto args = std::make_shared<StreamVerb>();
  CLI::App* verb = program.add_subcommand("stream", "Push endless texts through a model");
  verb->add_option("MODEL", args->model, "A model file (default: the bundled model)");
  verb->add_option("--in", args->inputs,
                   "Texts: files, pipes, - is standard input (default); each has a stream")
      ->type_name("FILE")
      ->allow_extra_args(false);
  verb->add_flag("--follow", args->follow, "Wait for more at the end of a file");
  verb->add_option("--load", args->load, "Go on from this snapshot")->type_name("SNAP");
  verb->add_option("--save", args->save, "Keep a snapshot here: every N tokens, at a signal, at the end")
      ->type_name("SNAP");
  verb->add_option("--every", args->every,
                   "Tokens between snapshots and health, rounded up to the model's grids (default: 65536)")
      ->check(CLI::Range(Index{1}, Index{1} << 40))
      ->type_name("N");
  verb->add_flag("--resume", args->resume,
                 "Go on where the files of an earlier run end; it read the same texts");
  verb->add_option("--journal", args->journal, "Loss by position as it is scored: tools/stream/README.md")
      ->type_name("FILE");
  verb->add_option("--per-token", args->per_token,
                   "The same as HDF5, built now and then and at the end; its journal is FILE.journal")
      ->type_name("F.h5");
  verb->add_option("--health", args->health, "A line of JSON on the state every N tokens")->type_name("FILE");
  verb->add_option("--out", args->out, "A folder for all these files, by the inputs' names")
      ->type_name("DIR");
  verb->add_option("--keep", args->keep,
                   "Bytes of earlier states to keep for rollbacks, e.g. 64MB (default: 0)")
      ->transform(byte_size())
      ->type_name("BYTES");
  add_edits(*verb, args->edits);
  add_window(*verb, args->window, args->sinks);
  verb->add_flag("--no-special", args->no_special, "Leave out the tokenizer's special tokens");
  add_common(*verb, args->common, "exact");
  verb->callback([args, &chosen] { chosen = [args] { return args->run(); }; });
}

}  // namespace plait
