// What the runs of tasks share: groups of items after one prefix, tiles of variants, batches of items, within
// the memory budget.
#pragma once

#include <span>

#include "tools/ablate/scores.h"
#include "tools/ablate/task_prompts.h"
#include "tools/ablate/tasks.h"

namespace plait::ablate {

// Rows of a walk that more items would not make faster.
inline constexpr Index kWalkRows = 8192;

struct TaskContext {
  const Task& task;
  const TaskSetup& setup;
  Index done;
  const TaskSink& sink;
};

// Reads rows of logits. Not thread-safe.
class RowReader {
 public:
  explicit RowReader(const TaskSetup& setup)
      : compute_(setup.options.compute), scratch_(static_cast<std::size_t>(setup.model->card().vocab)) {}
  LogSoftmax operator()(std::span<const float> logits) { return {logits, scratch_, compute_}; }
  LogSoftmax operator()(const VariantLogits& at, std::size_t r) {
    return (*this)({at.logits.row(static_cast<Index>(r)), static_cast<std::size_t>(at.logits.cols)});
  }

 private:
  const Compute compute_;
  std::vector<float> scratch_;
};

// The run of a file task. One object, one run.
class FileTaskRun {
 public:
  FileTaskRun(const TaskContext& context, const FileTask& task)
      : context_(context), task_(task), read_(context.setup) {}
  virtual ~FileTaskRun() = default;
  void run();

 protected:
  // Variants that are asked together.
  struct Tile {
    Wavefront& wavefront;  // of these variants only
    const VariantStates& prefix;
    std::size_t first, count;  // of all variants
    Index forks;               // copies of all its states that memory holds beside the prefix's, at least 1
    Index sequences;           // single variants' states that memory holds besides, at least 1
  };
  // Fills the tile's part of the items' responses.
  virtual void ask(const Tile& tile, std::span<PromptItem> items) = 0;
  virtual Outcome outcome(const PromptItem& item, std::size_t variant) const = 0;
  virtual Index tokens_to_come() const = 0;  // that a sequence may grow by after its prompt

  const TaskContext& context_;
  const FileTask& task_;
  RowReader read_;
  TaskCost cost_;  // of the items that are delivered next

 private:
  // The group's items from `done` on.
  void run_group(PromptGroup& group, std::size_t done);
  void run_tile(PromptGroup& group, std::size_t done, std::size_t first, std::size_t count,
                std::size_t state_bytes);
  std::size_t batch_size(std::span<const PromptItem> items, const Tile& tile) const;
  void deliver(std::span<const PromptItem> items);
  ItemResult result_of(const PromptItem& item) const;
  Index prefix_tokens_ = 0;
};

void run_choices(const TaskContext& context, const FileTask& task);
void run_generation(const TaskContext& context, const FileTask& task);
void run_probes(const TaskContext& context, const Generator& generator);

}  // namespace plait::ablate
