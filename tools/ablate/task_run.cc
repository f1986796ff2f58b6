#include "tools/ablate/task_run.h"

#include <algorithm>
#include <utility>

#include "runtime/base/error.h"

namespace plait::ablate {
namespace {

constexpr Index kDecodeRows = 64;  // sequences of a batch that more would not make faster

Index longest_of(const PromptGroup& group) {
  std::size_t longest = 0;
  for (const PromptItem& item : group.items) {
    std::size_t tail = 0;
    for (const Tail& t : item.tails) tail = std::max(tail, t.tokens.size());
    longest = std::max(longest, item.stem.size() + tail);
  }
  return static_cast<Index>(group.prefix.size() + longest);
}

}  // namespace

void FileTaskRun::run() {
  if (!context_.setup.tokenizer)
    fail("the task '", context_.task.name, "' is text, and the model has no tokenizer");
  const Prompts prompts(task_, *context_.setup.tokenizer, context_.task.limit);
  Index done = context_.done;
  for (std::size_t g = 0; g < prompts.group_count(); ++g) {
    const Index first = std::min(done, prompts.item_count(g));
    done -= first;
    if (first == prompts.item_count(g)) continue;
    PromptGroup group = prompts.encode(g);
    run_group(group, static_cast<std::size_t>(first));
  }
}

// Half of the memory is the wavefront's; the other half holds the states between its runs. Where those of all
// variants do not fit, variants are run in tiles, each through the whole group.
void FileTaskRun::run_group(PromptGroup& group, std::size_t done) {
  const TaskSetup& setup = context_.setup;
  const std::size_t variants = setup.plans.size();
  prefix_tokens_ = std::ssize(group.prefix);
  for (PromptItem& item : group.items)
    item.responses.resize(variants * std::max<std::size_t>(1, item.tails.size()));
  const std::size_t state_bytes = std::max<std::size_t>(
      1, Wavefront(setup.model, {nullptr}, setup.options)
             .state_bytes(longest_of(group) + tokens_to_come(), Wavefront::Kept::states));
  // A prefix, an item, a choice, and what the wavefront makes of it.
  const std::size_t tile = std::clamp<std::size_t>(setup.options.memory / 2 / (4 * state_bytes), 1, variants);
  for (std::size_t v = 0; v < variants; v += tile)
    run_tile(group, done, v, std::min(tile, variants - v), state_bytes);
  if (tile < variants) deliver(std::span(group.items).subspan(done));
}

void FileTaskRun::run_tile(PromptGroup& group, std::size_t done, std::size_t first, std::size_t count,
                           std::size_t state_bytes) {
  const TaskSetup& setup = context_.setup;
  const std::size_t half = setup.options.memory / 2;
  const auto begin = setup.plans.begin() + static_cast<std::ptrdiff_t>(first);
  Wavefront wavefront(setup.model, {begin, begin + static_cast<std::ptrdiff_t>(count)},
                      {setup.options.compute, half});
  VariantStates prefix;
  if (!group.prefix.empty()) {
    const VariantDocument document{group.prefix, {}, &prefix};
    wavefront.run({&document, 1}, {});
    if (done > 0) wavefront.take_cost();  // counted with the items that are there
  }
  const auto fitting = static_cast<Index>(half / state_bytes);
  const Tile tile{wavefront,
                  prefix,
                  first,
                  count,
                  std::max<Index>(2, fitting / static_cast<Index>(count)) - 1,
                  std::clamp<Index>(fitting, 1, kDecodeRows)};
  for (std::size_t at = done; at < group.items.size();) {
    const auto rest = std::span(group.items).subspan(at);
    const auto batch = rest.first(batch_size(rest, tile));
    ask(tile, batch);
    at += batch.size();
    const WavefrontCost cost = wavefront.take_cost();
    cost_.rows += cost.rows;
    if (first == 0) cost_.tokens += cost.tokens;
    if (count == setup.plans.size()) deliver(batch);
  }
}

// Half of the forks are for items, the other half for their choices.
std::size_t FileTaskRun::batch_size(std::span<const PromptItem> items, const Tile& tile) const {
  const auto most = static_cast<std::size_t>(std::max<Index>(1, tile.forks / 2));
  std::size_t size = 1, rows = items[0].stem.size();
  while (size < std::min(most, items.size())) {
    rows += items[size].stem.size();
    if (rows * tile.count > static_cast<std::size_t>(kWalkRows)) break;
    ++size;
  }
  return size;
}

void FileTaskRun::deliver(std::span<const PromptItem> items) {
  AskedBatch batch;
  for (const PromptItem& item : items) {
    batch.items.push_back(result_of(item));
    cost_.naive_tokens += item.naive_tokens;
  }
  batch.cost = std::exchange(cost_, {});
  context_.sink(batch);
}

ItemResult FileTaskRun::result_of(const PromptItem& item) const {
  QueryResult query;
  query.target = item.item->answer;
  query.factors.n_shot = task_.num_fewshot;
  query.factors.context_len = prefix_tokens_ + std::ssize(item.stem);
  for (std::size_t v = 0; v < context_.setup.plans.size(); ++v) query.outcomes.push_back(outcome(item, v));
  ItemResult result{context_.task.name, item.item->group, item.doc_id,
                    item.item->sha256,  item.prompt_sha,  {}};
  result.queries.push_back(std::move(query));
  return result;
}

}  // namespace plait::ablate
