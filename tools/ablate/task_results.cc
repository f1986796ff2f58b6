#include "tools/ablate/task_results.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>

#include "runtime/base/error.h"
#include "tools/ablate/statistics/paired.h"
#include "tools/ablate/statistics/power.h"

namespace plait::ablate {
namespace {

void write_line(const std::string& path, const std::string& line) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (file < 0) fail("'", path, "' cannot be written: ", std::strerror(errno));
  std::size_t done = 0;
  while (done < line.size()) {
    const ssize_t count = ::write(file, line.data() + done, line.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    done += static_cast<std::size_t>(count);
  }
  const bool whole = done == line.size() && ::fdatasync(file) == 0;
  const int error = errno;
  ::close(file);
  if (!whole) fail("'", path, "' cannot be written: ", std::strerror(error));
}

Json to_json(const TaskCost& cost) {
  return {{"tokens", cost.tokens},
          {"naive_tokens", cost.naive_tokens},
          {"sampled", cost.sampled},
          {"rows", cost.rows}};
}

// A batch as a line of the journal; nothing if it is none.
struct Line {
  Json items;
  TaskCost cost;
};
std::optional<Line> parse_line(std::string_view text) {
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object() || !json.contains("items") || !json.contains("cost")) return std::nullopt;
  const Json& cost = json["cost"];
  return Line{json["items"],
              {cost.at("tokens"), cost.at("naive_tokens"), cost.at("sampled"), cost.at("rows")}};
}

// One sample's measurement: a metric of an item, in one cluster.
struct Measured {
  double value;
  std::string group;
};
using Key = std::pair<Index, Index>;           // item, query
using Measurements = std::map<Key, Measured>;  // of one condition, metric and factor
using Table =
    std::map<std::string, std::map<std::string, Measurements>>;  // metric and factor -> condition -> ..

std::string factors_of(const Json& sample) {
  std::string text;
  for (const char* key : {"length", "pairs", "depth", "position_bin"})
    if (sample.contains(key)) text = cat(text, text.empty() ? "" : ", ", key, " ", sample[key].dump());
  return text;
}

class TaskAnalyst {
 public:
  TaskAnalyst(const Study& study, const std::vector<std::string>& ids,
              const std::vector<std::string>& families, int threads)
      : study_(study), ids_(ids), families_(families), threads_(threads) {}

  void add(const Json& item) {
    std::map<std::string, Index> queries;  // so far, by condition
    for (const Json& sample : item) {
      const std::string task = sample["task"], condition = sample["condition_id"];
      const Key key = {sample["doc_id"].get<Index>(), queries[condition]++};
      const std::string group = sample.value("group", "");
      const bool generated = !sample["acc_norm"].is_number() && sample["resps"].size() == 1;
      shots_[task] = sample["n_shot"].get<Index>();
      const auto put = [&](const std::string& metric, const Json& value) {
        if (!value.is_number() && !value.is_boolean()) return;
        const double number = value.is_boolean() ? (value.get<bool>() ? 1.0 : 0.0) : value.get<double>();
        tables_[task][metric + "|"][condition][key] = {number, group};
        const std::string factors = factors_of(sample);
        if (!factors.empty()) tables_[task][metric + "|" + factors][condition][key] = {number, group};
      };
      put(generated ? "exact_match" : "acc", sample["correct"]);
      put("acc_norm", sample["acc_norm"]);
      if (generated) put("acc", sample["acc"]);
      put("nll", sample["nll"]);
    }
  }

  std::vector<ResultRow> rows() {
    for (const auto& [task, table] : tables_)
      for (const auto& [name, by_condition] : table)
        for (std::size_t c = 0; c < ids_.size(); ++c) row(task, name, by_condition, c);
    adjust_rows(rows_);
    return std::move(rows_);
  }

 private:
  void row(const std::string& task, const std::string& name,
           const std::map<std::string, Measurements>& by_condition, std::size_t c) {
    const auto own = by_condition.find(ids_[c]), base = by_condition.find(ids_[0]);
    if (own == by_condition.end() || base == by_condition.end()) return;
    const auto bar = name.find('|');
    ResultRow r;
    r.condition_id = ids_[c];
    r.dataset = task;
    r.task_version = "1";
    r.n_shot = cat(shots_[task]);
    r.metric = name.substr(0, bar);
    r.position_bin = name.substr(bar + 1);
    r.higher_is_better = r.metric != "nll";
    std::vector<double> differences, mine, theirs;
    std::map<std::string, Index> groups;
    std::vector<Index> cluster;
    for (const auto& [key, measured] : own->second) {
      const auto pair = base->second.find(key);
      if (pair == base->second.end() || !std::isfinite(measured.value) || !std::isfinite(pair->second.value))
        continue;
      mine.push_back(measured.value);
      theirs.push_back(pair->second.value);
      differences.push_back(measured.value - pair->second.value);
      const std::string name_of_cluster = measured.group.empty() ? cat("item ", key.first) : measured.group;
      cluster.push_back(groups.try_emplace(name_of_cluster, static_cast<Index>(groups.size())).first->second);
    }
    if (mine.empty()) return;
    const auto n = static_cast<double>(mine.size());
    for (const double v : mine) r.value = std::isnan(r.value) ? v / n : r.value + v / n;
    for (const double v : theirs)
      r.baseline_value = std::isnan(r.baseline_value) ? v / n : r.baseline_value + v / n;
    r.delta = r.value - r.baseline_value;
    r.n_items = r.n_paired = static_cast<Index>(mine.size());
    r.n_clusters = static_cast<Index>(groups.size());
    if (c > 0) test(r, differences, cluster, c);
    rows_.push_back(std::move(r));
  }

  void test(ResultRow& r, std::span<const double> differences, std::span<const Index> cluster,
            std::size_t c) const {
    const std::vector<Cluster> pairs = sum_by_cluster(differences, {}, cluster);
    if (!r.position_bin.empty()) {  // by factor: shown, not tested
      if (!refusal(pairs).empty()) return;
      const StudentTest t = student_test(pairs, 0.95);
      r.stderr_ = standard_error(pairs);
      r.ci_low = t.interval.low, r.ci_high = t.interval.high, r.ci_level = 0.95, r.ci_method = "cluster_t";
      return;
    }
    PairedSettings settings;
    settings.resamples = study_.stats.boot;
    settings.seed = study_.seed;
    settings.threads = threads_;
    const PairedMean result = paired_mean(pairs, settings);
    if (!result.refused.empty()) {
      r.ci_method = "refused: " + result.refused;
      return;
    }
    r.stderr_ = result.standard_error;
    r.ci_low = result.interval.low, r.ci_high = result.interval.high, r.ci_level = result.level;
    r.ci_method = result.method;
    r.mde80 =
        smallest_effect(r.n_clusters, result.standard_error * std::sqrt(static_cast<double>(r.n_clusters)));
    r.p_raw = result.p;
    const auto& declared = study_.plan.confirmatory;
    const bool confirmatory = std::find(declared.begin(), declared.end(), r.condition_id) != declared.end();
    r.family_id = cat(confirmatory ? "confirmatory" : families_[c], ":", r.dataset, ":", r.metric);
    r.adjust = confirmatory ? study_.stats.confirmatory : study_.stats.sweep;
  }

  const Study& study_;
  const std::vector<std::string>&ids_, &families_;
  int threads_;
  std::map<std::string, Table> tables_;  // by task
  std::map<std::string, Index> shots_;
  std::vector<ResultRow> rows_;
};

}  // namespace

SampleJournal::SampleJournal(const std::string& path, const std::string& plan_sha256) : path_(path) {
  std::string bytes;
  {
    std::ifstream file(path, std::ios::binary);
    bytes.assign(std::istreambuf_iterator<char>(file), {});
  }
  const std::string header = Json{{"journal", 2}, {"plan_sha256", plan_sha256}}.dump() + "\n";
  if (bytes.size() >= header.size() && bytes.compare(0, header.size(), header) != 0)
    fail("'", path, "' belongs to another study, or to another version of plait: ",
         "its plan, model, tasks, arithmetic or format differ");
  std::size_t end = bytes.size() < header.size() ? 0 : header.size();
  while (end > 0) {
    const std::size_t stop = bytes.find('\n', end);
    if (stop == std::string::npos) break;
    const auto line = parse_line(std::string_view(bytes).substr(end, stop - end));
    if (!line) break;
    add(line->items, line->cost);
    end = stop + 1;
  }
  if (std::filesystem::exists(path)) std::filesystem::resize_file(path, end);
  if (end == 0) write_line(path, header);
}

Index SampleJournal::done(const std::string& task) const {
  return std::count_if(items_.begin(), items_.end(),
                       [&](const Json& item) { return item[0]["task"] == task; });
}

void SampleJournal::add(const Json& samples, const TaskCost& cost) {
  items_.insert(items_.end(), samples.begin(), samples.end());
  cost_ += cost;
}

void SampleJournal::append(const Json& samples, const TaskCost& cost) {
  write_line(path_, Json{{"cost", to_json(cost)}, {"items", samples}}.dump() + "\n");
  add(samples, cost);
}

void ask(const std::vector<Task>& tasks, const TaskSetup& setup,
         const std::vector<std::string>& condition_ids, SampleJournal& journal,
         const std::function<void(const std::string& task, Index items)>& progress) {
  const auto samples_of = [&](const ItemResult& item) {
    Json samples = Json::array();
    for (const QueryResult& query : item.queries)
      for (std::size_t v = 0; v < condition_ids.size(); ++v)
        samples.push_back(sample_json(item, query, v, condition_ids[v]));
    return samples;
  };
  for (const Task& task : tasks)
    run_task(task, setup, journal.done(task.name), [&](const AskedBatch& batch) {
      Json items = Json::array();
      for (const ItemResult& item : batch.items) items.push_back(samples_of(item));
      journal.append(items, batch.cost);
      progress(task.name, journal.done(task.name));
    });
}

std::string samples_jsonl(const SampleJournal& journal) {
  std::string text;
  for (const Json& item : journal.items())
    for (const Json& sample : item) text += sample.dump() + "\n";
  return text;
}

std::vector<ResultRow> analyse_tasks(const Study& study, const SampleJournal& journal,
                                     const std::vector<std::string>& condition_ids,
                                     const std::vector<std::string>& families, int threads) {
  TaskAnalyst analyst(study, condition_ids, families, threads);
  for (const Json& item : journal.items()) analyst.add(item);
  return analyst.rows();
}

}  // namespace plait::ablate
