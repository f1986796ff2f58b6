#include "tools/ablate/experiment.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <filesystem>
#include <iterator>
#include <optional>
#include <set>

#include "runtime/base/digest.h"
#include "runtime/base/error.h"
#include "runtime/base/random.h"
#include "runtime/run/recording.h"
#include "tools/ablate/analysis.h"
#include "tools/ablate/checks.h"
#include "tools/ablate/components.h"
#include "tools/ablate/manifest.h"
#include "tools/ablate/plan.h"
#include "tools/ablate/sweep.h"
#include "tools/ablate/task_results.h"
#include "tools/program.h"
#include "weights/array_file.h"

namespace plait::ablate {
namespace {

namespace fs = std::filesystem;

// A part that is zero from the first token to the last need not run: nobody reads its state (C7 of the gate).
bool needs_no_run(const Edit& edit) {
  return edit.site == Site::output && edit.op == Operator::zero && edit.strength == 1 && edit.begin == 0 &&
         edit.end < 0 && edit.phase == Phase::always && edit.channels.empty();
}

constexpr Index kStream = 0;  // as a context length: the whole sequence

// What the edits of a study ask of its reference.
RecordRequest request_of(std::span<const Edit> edits) {
  RecordRequest request;
  std::set<Site> means, rows;
  for (const Edit& edit : edits) {
    if (takes_inner_mean(edit)) means.insert(edit.site);
    if (edit.op == Operator::swap) {
      if (request.state_at >= 0 && request.state_at != edit.begin)
        fail("state.swap before token ", edit.begin, " beside one before token ", request.state_at,
             ": a study keeps the states of its reference at one position");
      request.state_at = edit.begin;
    }
    if (takes_inner_rows(edit))
      rows.insert(edit.site);
    else
      request.rows = request.rows || edit.op == Operator::resample || edit.op == Operator::patch;
  }
  request.inner.assign(means.begin(), means.end());
  request.inner_rows.assign(rows.begin(), rows.end());
  return request;
}

class Experiment {
 public:
  explicit Experiment(const ExperimentSettings& settings)
      : settings_(settings), study_(settings.study), model_(*settings.model), began_(now()) {}

  ExperimentOutcome conduct() {
    plan_ = plan_of(study_, model_);
    read_tasks();
    read_texts();
    record_reference();
    compile(0);
    open_folder();
    ExperimentOutcome outcome;
    outcome.valid = gate(outcome);
    if (!outcome.valid) return outcome;
    settings_.say(cat(plan_.conditions.size(), " conditions on ", scored_tokens(), " scored tokens in ",
                      units_.size(), " windows"));
    settings_.say(power_table(texts_, static_cast<Index>(plan_.conditions.size()) - 1));
    if (!units_.empty()) phase(0, all_conditions());
    pairs();
    ask_tasks();
    time_alone();
    write(outcome);
    return outcome;
  }

 private:
  static std::string now() {
    const std::time_t time = std::time(nullptr);
    char text[32];
    std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&time));
    return text;
  }

  std::string in_folder(const std::string& name) const {
    return (fs::path(settings_.folder) / name).string();
  }

  void read_tasks() {
    std::set<std::string> names;
    for (const Json& json : study_.score.tasks) {
      const Document document{"task " + json.dump().substr(0, 80), json, {}};
      tasks_.push_back(parse_task(Value(document), ""));
      if (!names.insert(tasks_.back().name).second) fail("two tasks are named '", tasks_.back().name, "'");
    }
  }

  void read_texts() {
    if (study_.score.nll.empty() && tasks_.empty())
      fail("the study names no text and no task to score; pass --text, --tasks or 'score: {nll: [..]}'");
    for (const std::string& file : study_.score.nll)
      texts_.push_back(read_text(file, study_.score.documents, *settings_.tokenizer, model_.card().vocab));
    std::vector<Index> contexts = study_.score.lengths;
    if (contexts.empty()) contexts = {2048, kStream};
    for (std::size_t t = 0; t < texts_.size(); ++t)
      for (const Index context : contexts) {
        const auto more = units_of(texts_, static_cast<int>(t), context, study_.score.scored, study_.seed);
        units_.insert(units_.end(), more.begin(), more.end());
      }
    if (study_.plan.stop_rule == "anytime") shuffle(units_, study_.seed);
    if (units_.empty() && !texts_.empty()) fail("no token of the texts is scored");
  }

  Index scored_tokens() const {
    Index sum = 0;
    for (const Unit& unit : units_) sum += static_cast<Index>(unit.scored.size());
    return sum;
  }

  // Means, and rows where some edit wants them, of the reference text.
  void record_reference() {
    EditList readers;
    for (const Condition& condition : plan_.conditions)
      std::copy_if(condition.edits.begin(), condition.edits.end(), std::back_inserter(readers),
                   reads_reference);
    if (readers.empty()) return;
    if (study_.reference.data.empty())
      fail("the study has edits that take their values from a reference (mean, resample, patch, ",
           "zero_rescale, state.swap, and decay.const, write.const, gate.mean, head.mean, head.resample "
           "without values), ",
           "but no 'reference: {data: ..}'");
    const Text text = read_text(study_.reference.data, "blank", *settings_.tokenizer, model_.card().vocab);
    std::vector<Token> tokens = text.sequences[0].tokens;
    if (static_cast<Index>(tokens.size()) > study_.reference.tokens)
      tokens.resize(static_cast<std::size_t>(study_.reference.tokens));
    settings_.say(cat("recording ", tokens.size(), " tokens of the reference"));
    const std::vector<std::vector<Token>> texts = {std::move(tokens)};
    references_[kReference] =
        std::make_shared<const Recording>(record(model_, texts, request_of(readers), settings_.compute));
  }

  // Edit plans of the conditions from `first` on.
  void compile(std::size_t first) {
    for (std::size_t c = first; c < plan_.conditions.size(); ++c) {
      EditList edits = plan_.conditions[c].edits;
      for (Edit& edit : edits) {
        if (reads_reference(edit) && edit.reference.empty()) edit.reference = kReference;
        if (needs_no_run(edit)) edit.shadow = Shadow::off;
      }
      try {
        plans_.push_back(edits.empty() ? nullptr
                                       : std::make_shared<const EditPlan>(model_, edits, references_));
      } catch (const Error& error) {
        fail("condition '", plan_.conditions[c].id, "': ", error.what());
      }
    }
  }

  // What scores belong to: everything that could change one of them.
  std::string plan_sha256(std::span<const int> conditions) const {
    Json list = Json::array();
    for (const int c : conditions)
      list.push_back(to_json(plan_.conditions[static_cast<std::size_t>(c)].edits));
    Json texts = Json::array();
    for (const Text& text : texts_) texts.push_back({text.name, text.sha256, text.documents});
    const Json whole = {{"conditions", list},
                        {"texts", texts},
                        {"lengths", study_.score.lengths},
                        {"scored", study_.score.scored},
                        {"seed", study_.seed},
                        {"stop_rule", study_.plan.stop_rule},
                        {"reference", references_.empty() ? "" : references_.begin()->second->digest},
                        {"model", model_.identity()},
                        {"arithmetic", arithmetic(model_.card(), settings_.compute)}};
    return sha256(whole.dump());
  }

  void open_folder() {
    const fs::path folder = settings_.folder;
    std::error_code error;
    const bool there =
        fs::exists(folder, error) && !(fs::is_directory(folder, error) && fs::is_empty(folder, error));
    if (there && !fs::is_directory(folder, error)) fail("'", settings_.folder, "' is no folder");
    if (there && settings_.start == ExperimentSettings::Start::fresh)
      fail("run folder '", settings_.folder,
           "' is not empty; pass --resume to go on with it, or another --out");
    fs::create_directories(folder, error);
    if (error) fail("run folder '", settings_.folder, "' cannot be made: ", error.message());
    // Opening the journal refuses the folder of another study before anything is written into it.
    const auto all = all_conditions();
    Journal(in_folder(journal_name(0)), plan_sha256(all));
  }

  static std::string journal_name(int phase) { return cat("journal.", phase, ".bin"); }

  bool gate(ExperimentOutcome& outcome) {
    settings_.say("checking that this model can be studied (C1 to C10)");
    const std::vector<Token> tokens = first_tokens(4096);
    std::vector<EditList> conditions;
    for (const auto& plan : plans_) conditions.push_back(plan ? plan->edits() : EditList());
    const Subject subject{settings_.model, tokens, settings_.compute, memory()};
    const std::vector<Check> checks = run_checks(subject, conditions, references_, settings_.progress);
    write_checks(in_folder("checks.json"), checks);
    for (const Check& check : checks)
      if (check.verdict == Check::Verdict::failed) {
        outcome.failed_check = cat(check.id, ", ", check.name, ": ", check.detail);
        break;
      }
    return passed(checks);
  }

  std::vector<Token> first_tokens(Index most) const {
    if (texts_.empty()) {
      std::vector<Token> drawn;
      for (Index i = 0; i < std::min<Index>(most, 512); ++i)
        drawn.push_back(static_cast<Token>(uniform_draw(0, 0, static_cast<std::uint64_t>(i)) *
                                           static_cast<double>(model_.card().vocab)));
      return drawn;
    }
    const auto& tokens = texts_[0].sequences[0].tokens;
    return {tokens.begin(),
            tokens.begin() + std::min<std::ptrdiff_t>(most, static_cast<std::ptrdiff_t>(tokens.size()))};
  }

  std::vector<int> all_conditions() const {
    std::vector<int> all;
    for (std::size_t c = 0; c < plan_.conditions.size(); ++c) all.push_back(static_cast<int>(c));
    return all;
  }

  // Sweeps some conditions (the baseline first) into a journal of their own.
  void phase(int number, const std::vector<int>& conditions) {
    Sweep sweep{settings_.model, {}, texts_, units_, {settings_.compute, memory()}};
    for (const int c : conditions) sweep.plans.push_back(plans_[static_cast<std::size_t>(c)]);
    sweep.progress = [&](double share, const WavefrontCost& cost) {
      settings_.progress(share, cat(cost.tiles, " tiles, ", fixed(cost.forwards_equiv(), 2), " forwards"));
    };
    const std::string name = in_folder(journal_name(number)), sha = plan_sha256(conditions);
    SweepCost cost;
    const bool stops = number == 0 && study_.plan.stop_rule == "anytime";
    if (stops) may_stop(sweep);
    {
      Journal journal(name, sha);
      if (stops)
        for (const UnitScores& scores : Journal::read(name, sha)) stop_->add(scores);
      cost = run_sweep(sweep, journal);
    }
    settings_.say(
        cat("scored ", conditions.size(), " conditions: ", fixed(cost.wavefront.forwards_equiv(), 2),
            " forward passes of arithmetic, ", cost.wavefront.tiles, " tiles, ", fixed(cost.seconds, 1), " s",
            cost.resumed > 0 ? cat(" beside the ", cost.resumed, " windows that were there already") : ""));
    costs_.push_back(cost);
    std::vector<UnitScores> scores = Journal::read(name, sha);
    if (stops) keep_scored(scores);
    scores_.add(std::move(scores), conditions);
  }

  // Lets the sweep end a text and context once all named conditions are settled.
  void may_stop(Sweep& sweep) {
    std::set<int> tested;
    for (const auto& [condition, index] : listed(plan_))
      if (index != 0 && condition.design != "random" && condition.design != "shapley") tested.insert(index);
    stop_.emplace(units_, std::vector<int>(tested.begin(), tested.end()));
    sweep.observe = [this](const UnitScores& scores) { stop_->add(scores); };
    sweep.skip = [this](const Unit& unit) { return stop_->settled(unit); };
  }

  // After an early end only what was scored is spoken of.
  void keep_scored(std::span<const UnitScores> scores) {
    std::vector<Unit> kept;
    std::set<Index> there;
    for (const UnitScores& unit : scores) {
      there.insert(unit.unit);
      kept.push_back(units_[static_cast<std::size_t>(unit.unit)]);
    }
    for (std::size_t u = 0; u < units_.size(); ++u)
      if (!there.count(static_cast<Index>(u))) stopped_.insert({units_[u].text, units_[u].context});
    for (const auto& [text, context] : stopped_)
      settings_.say(cat("'", texts_[static_cast<std::size_t>(text)].name, "' ended early in windows of ",
                        context, ": every named condition is settled"));
    units_ = std::move(kept);
  }

  std::size_t memory() const {
    if (settings_.memory > 0) return settings_.memory;
    const auto bytes = static_cast<std::size_t>(::sysconf(_SC_PHYS_PAGES)) *
                       static_cast<std::size_t>(::sysconf(_SC_PAGE_SIZE));
    return std::max<std::size_t>(bytes / 4, std::size_t{512} << 20);
  }

  AnalysisInput analysis_input() const {
    return {study_,
            plan_,
            texts_,
            units_,
            scores_,
            solo_,
            model_.card().vocab,
            settings_.compute.threads,
            stop_ ? &*stop_ : nullptr,
            stopped_};
  }

  // Pair designs wait for the sweep that says which singles are the strongest.
  void pairs() {
    if (plan_.deferred.empty() || units_.empty()) return;
    const std::size_t before = plan_.conditions.size();
    const std::vector<Design> deferred = plan_.deferred;
    for (const Design& design : deferred)
      add_pairs(plan_, study_, model_, design,
                strongest_singles(analysis_input(), find_alias(design.site).name));
    if (plan_.conditions.size() == before) return;
    compile(before);
    std::vector<int> conditions = {0};
    for (std::size_t c = before; c < plan_.conditions.size(); ++c) conditions.push_back(static_cast<int>(c));
    phase(1, conditions);
  }

  bool needs_baseline(int condition) const {
    const EditList& edits = plan_.conditions[static_cast<std::size_t>(condition)].edits;
    return std::any_of(edits.begin(), edits.end(), reads_baseline);
  }

  // Named conditions answer the tasks; sets that only controls and Shapley orders use do not, nor can what
  // reads the baseline: a task has no baseline that writes the same tokens.
  void ask_tasks() {
    if (tasks_.empty()) return;
    TaskSetup setup{settings_.model, settings_.tokenizer, {}, {settings_.compute, memory()}};
    for (const auto& [condition, index] : listed(plan_)) {
      if (condition.design == "random" || condition.design == "shapley") continue;
      if (needs_baseline(index)) {
        settings_.say(cat("'", condition.id,
                          "' is asked no task: it takes norms from the whole model on the ", "same tokens"));
        continue;
      }
      setup.plans.push_back(plans_[static_cast<std::size_t>(index)]);
      task_conditions_.push_back(condition.id);
      task_families_.push_back(cat(condition.design, ":", condition.site, ".", condition.op));
    }
    Json tasks = Json::array();
    for (const Task& task : tasks_) tasks.push_back(to_json(task));
    const std::string sha = sha256(plan_sha256(all_conditions()) + tasks.dump());
    samples_.emplace(in_folder("journal.tasks.jsonl"), sha);
    ask(tasks_, setup, task_conditions_, *samples_, [&](const std::string& task, Index items) {
      settings_.progress(0, cat(task, ", ", items, " items"));
    });
    settings_.say(cat("asked ", samples_->items().size(), " items of ", tasks_.size(),
                      " tasks: ", samples_->cost().tokens, " tokens per condition, ",
                      samples_->cost().naive_tokens, " the naive way"));
  }

  // Each named condition alone on a short text: the time it saves (P11, P12). Sets that only controls draw
  // have none, nor has what cannot run alone.
  void time_alone() {
    constexpr Index kLarge = 100'000'000;  // parameters
    const std::vector<Token> tokens = first_tokens(model_.parameter_count() > kLarge ? 128 : 512);
    const VariantDocument document{tokens, {}, nullptr};
    for (const auto& [condition, index] : listed(plan_)) {
      if (condition.design == "random" || condition.design == "shapley" || solo_.count(index)) continue;
      if (needs_baseline(index)) continue;
      SoloCost& cost = solo_[index];
      for (int repeat = 0; repeat < 3; ++repeat) {
        Wavefront alone(settings_.model, {plans_[static_cast<std::size_t>(index)]},
                        {settings_.compute, memory()});
        const Stopwatch watch;
        alone.run({&document, 1}, {});
        cost.seconds = repeat == 0 ? watch.seconds() : std::min(cost.seconds, watch.seconds());
        cost.forwards_equiv = alone.take_cost().forwards_equiv();
      }
    }
  }

  void write_text(const std::string& name, const std::string& text) const {
    OutputFile file(in_folder(name));
    file.write(text);
    file.commit();
  }

  void write(ExperimentOutcome& outcome) {
    const std::string run_id = sha256(plan_sha256(all_conditions()) + began_).substr(0, 16);
    std::vector<ResultRow> rows;
    if (!units_.empty()) rows = analyse(analysis_input());
    if (samples_) {
      const auto more =
          analyse_tasks(study_, *samples_, task_conditions_, task_families_, settings_.compute.threads);
      rows.insert(rows.end(), more.begin(), more.end());
      write_text("samples.jsonl", samples_jsonl(*samples_));
    }
    std::string conditions = condition_header();
    for (const auto& [condition, index] : listed(plan_)) conditions += csv_row(condition);
    write_text("conditions.csv", conditions);
    write_text("controls.csv", controls_csv(plan_));
    if (!units_.empty()) write_tokens();
    ManifestInput manifest{
        settings_.model_file, model_, *settings_.tokenizer, settings_.compute, study_, plan_, texts_};
    Json run = manifest_of(manifest);
    run["run_id"] = run_id;
    run["started"] = began_;
    run["finished"] = now();
    run["plan_sha256"] = plan_sha256(all_conditions());
    run["engine"]["version"] = settings_.version;
    run["cmdline"] = settings_.command_line;
    run["cost"] = cost_json();
    if (const Task* task = most_limited()) {
      const bool flag = settings_.limits == ExperimentSettings::Limits::flag;
      run["limit"] = task->limit;
      run["limit_from"] = flag ? "--limit" : cat("'limit' of the task '", task->name, "'");
    }
    run["references"] = Json::object();
    for (const auto& [name, recording] : references_) run["references"][name] = recording->digest;
    write_text("run.json", run.dump(2) + "\n");
    write_text("results.csv", results_csv(run_id, "baseline", rows));  // last: a folder with results is whole
    outcome.run = std::move(run);
  }

  // Of the tasks that ask a part of their items only, the one that asks fewest; null if none does.
  const Task* most_limited() const {
    const Task* most = nullptr;
    for (const Task& task : tasks_)
      if (task.limit > 0 && (!most || task.limit < most->limit)) most = &task;
    return most;
  }

  Json cost_json() const {
    double forwards = 0, seconds = 0;
    Index tokens = 0;
    const TaskCost tasks = samples_ ? samples_->cost() : TaskCost();
    for (const SweepCost& cost : costs_) {
      forwards += cost.wavefront.forwards_equiv();
      seconds += cost.seconds;
      tokens = std::max(tokens, cost.wavefront.tokens);
    }
    return {{"forwards_equiv", forwards},
            {"tokens", tokens},
            {"seconds", seconds},
            {"task_tokens", tasks.tokens},
            {"task_tokens_naive", tasks.naive_tokens}};
  }

  // One column per scored token, the units after each other; one row per condition of the plan.
  void write_tokens() const {
    const auto conditions = static_cast<Index>(plan_.conditions.size());
    const Index tokens = scored_tokens();
    ArrayFile file(in_folder("tokens.h5"));
    const Shape shape = {conditions, tokens};
    const auto matrix = [&](const char* name, auto pick) {
      std::vector<decltype(pick(TokenScores()))> values;
      values.reserve(static_cast<std::size_t>(conditions * tokens));
      for (int c = 0; c < static_cast<int>(conditions); ++c)
        for (std::size_t u = 0; u < units_.size(); ++u)
          for (const TokenScores& s : scores_.of(c, u)) values.push_back(pick(s));
      file.add(name, shape, std::span<const decltype(pick(TokenScores()))>(values));
    };
    matrix("nll", [](const TokenScores& s) { return s.nll; });
    matrix("kl", [](const TokenScores& s) { return s.kl; });
    matrix("rank", [](const TokenScores& s) { return s.rank; });
    matrix("top1", [](const TokenScores& s) { return s.agree; });
    std::vector<std::int64_t> ids, documents, unit_offsets = {0}, unit_text, unit_context, document_offsets;
    for (const Unit& unit : units_) {
      const auto& sequence =
          texts_[static_cast<std::size_t>(unit.text)].sequences[static_cast<std::size_t>(unit.sequence)];
      for (const Index offset : unit.scored) {
        const auto target = static_cast<std::size_t>(unit.begin + offset + 1);
        ids.push_back(sequence.tokens[target]);
        const std::int64_t document = sequence.document[target];
        const bool first = offset == unit.scored.front();
        if (first || document != documents.back())
          document_offsets.push_back(static_cast<std::int64_t>(documents.size()));
        documents.push_back(document);
      }
      unit_offsets.push_back(static_cast<std::int64_t>(ids.size()));
      unit_text.push_back(unit.text);
      unit_context.push_back(unit.context);
    }
    file.add("token_ids", ids);
    file.add("documents", documents);
    file.add("doc_offsets", document_offsets);
    file.add("unit_offsets", unit_offsets);
    file.add("unit_text", unit_text);
    file.add("unit_context", unit_context);
    file.finish();
  }

  const ExperimentSettings& settings_;
  const Study& study_;
  const Model& model_;
  std::string began_;
  Plan plan_;
  std::vector<Text> texts_;
  std::vector<Unit> units_;
  References references_;
  std::vector<std::shared_ptr<const EditPlan>> plans_;  // by condition
  ScoreBook scores_;
  std::vector<SweepCost> costs_;
  std::map<int, SoloCost> solo_;
  std::optional<StopRule> stop_;  // where the plan declared one
  std::set<std::pair<int, Index>> stopped_;
  std::vector<Task> tasks_;
  std::vector<std::string> task_conditions_, task_families_;
  std::optional<SampleJournal> samples_;
};

}  // namespace

ExperimentOutcome conduct(const ExperimentSettings& settings) { return Experiment(settings).conduct(); }

}  // namespace plait::ablate
