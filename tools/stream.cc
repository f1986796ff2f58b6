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
#include "weights/file_lock.h"
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
  stream::Outputs outputs_of(const std::string& input) const;

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

stream::Outputs StreamVerb::outputs_of(const std::string& input) const {
  return out.empty() ? stream::Outputs{save, journal, per_token, health} : outputs_in(out, input);
}

struct Running {
  std::string input;
  std::unique_ptr<stream::Session> session = {};  // none if it could not begin
  std::string failure = {};                       // why it ended early
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
    // A text that goes on from another one does not begin.
    const stream::TextPieces pieces(tokenizer,
                                    args_.no_special || begin ? Specials::without : Specials::with);
    for (const std::string& path : args_.inputs) {
      all_.push_back({path});
      guard(all_.back(), [&] {
        auto input = std::make_unique<stream::Input>(
            path, pieces, args_.follow ? stream::Input::AtEnd::follow : stream::Input::AtEnd::finish);
        all_.back().session = std::make_unique<stream::Session>(
            model_, settings_, std::move(input), args_.outputs_of(path), begin ? &*begin : nullptr);
      });
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
      check_memory();
    }
    finish();
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
      if (args_.inputs.size() > 1)
        note(args_.common, cat("input '", running.input, "' ends here: ", error.what()));
    }
  }

  void finish(Running& running) {
    if (running.finished || !running.failure.empty()) return;
    running.finished = true;
    guard(running, [&] { running.session->finish(); });
  }

  void finish() {
    for (Running& running : all_) finish(running);
  }

  // Nothing is lost where the budget ends.
  void check_memory() {
    if (args_.common.memory == 0) return;
    std::size_t bytes = 0;
    for (const Running& running : all_)
      if (running.session) bytes += running.session->bytes();
    try {
      check_budget(args_.common, *model_, bytes);
    } catch (const Error&) {
      finish();
      throw;
    }
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
    Json json = {{"input", running.input}};
    if (running.session) json = running.session->report();
    const auto shown = [&](const char* key, double factor, int decimals) -> std::string {
      return !json.contains(key) || json[key].is_null() ? "-"
                                                        : fixed(factor * json[key].get<double>(), decimals);
    };
    rows.push_back({running.input, shown("tokens", 1, 0), shown("nll", 1, 5), shown("top1", 100, 2),
                    running.session ? human_bytes(json["state_bytes"].get<double>()) : "-", how});
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
  flush_output();  // failures below end the program
  note(args_.common, cat(tokens_, " tokens in ", fixed(seconds_, 2), " s, ", fixed(rate, 0), " tokens/s"));
  if (failures > 0)
    fail(failures, " of ", all_.size(), " inputs ended early, '", failed->input,
         "' because of this: ", failed->failure);
  return stop_asked ? kInterrupted : kDone;
}

// Each file has one part: read or written, by one stream.
void StreamVerb::check_names() const {
  std::set<std::string> names;
  for (const std::string& path : inputs)
    if (!names.insert(out.empty() ? path : outputs_in(out, path).journal).second)
      throw UsageError(cat("two inputs are called '", path, "'"));
  std::vector<std::string> read = inputs, written = {common.json};
  read.insert(read.end(), {model, load, edits});
  for (const std::string& input : inputs) {
    const stream::Outputs files = stream::with_journal(outputs_of(input));
    written.insert(written.end(), {files.save, files.journal, files.per_token, files.health});
    for (const std::string& path : {files.save, files.per_token})
      if (!path.empty()) written.push_back(WriterLock::name_for(path));
    if (out.empty()) break;
  }
  check_files(read, written);
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
