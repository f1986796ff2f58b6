// Tasks of a study: asked item by item into a journal, written as samples.jsonl, summed up as results.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tools/ablate/plan.h"
#include "tools/ablate/results.h"
#include "tools/ablate/tasks.h"

namespace plait::ablate {

// One line per batch: what it cost, and of each item the list of its samples, of all conditions and queries.
// A line that a kill tore is cut off. Throws Error when the file belongs to another plan (its first line is
// the plan's SHA-256).
class SampleJournal {
 public:
  SampleJournal(const std::string& path, const std::string& plan_sha256);
  Index done(const std::string& task) const;  // items of the task that are there
  // samples: a list per item. On the disk when it returns.
  void append(const Json& samples, const TaskCost& cost);
  const std::vector<Json>& items() const { return items_; }
  const TaskCost& cost() const { return cost_; }  // of all batches

 private:
  void add(const Json& samples, const TaskCost& cost);

  std::string path_;
  std::vector<Json> items_;
  TaskCost cost_;
};

// Asks what the journal does not hold yet. condition_ids: by plan of the setup.
void ask(const std::vector<Task>& tasks, const TaskSetup& setup,
         const std::vector<std::string>& condition_ids, SampleJournal& journal,
         const std::function<void(const std::string& task, Index items)>& progress);

// samples.jsonl: every sample on a line of its own.
std::string samples_jsonl(const SampleJournal& journal);

// acc, acc_norm, exact_match and nll of every condition and task, paired with the baseline's on the same
// items, clustered by group where there are several, and by every combination of a generator's factors.
std::vector<ResultRow> analyse_tasks(const Study& study, const SampleJournal& journal,
                                     const std::vector<std::string>& condition_ids,
                                     const std::vector<std::string>& families, int threads);

}  // namespace plait::ablate
