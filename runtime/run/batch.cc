#include "runtime/run/batch.h"

#include <algorithm>
#include <cstring>

#include "runtime/base/error.h"
#include "runtime/base/parallel.h"

namespace plait {

Sequence::Sequence(const Model& model, Index rollback_depth, std::shared_ptr<const EditPlan> edits)
    : plan(std::move(edits)) {
  check_causal(model);
  for (int n = 0; n < model.node_count(); ++n) {
    const auto declared = model.layer(n).fields();
    if (plan)
      states.emplace_back(plan->fields(declared, n), rollback_depth);
    else
      states.emplace_back(declared, rollback_depth);
  }
}

void check_causal(const Model& model) {
  if (!model.card().causal)
    fail("model '", model.card().name,
         "' is an encoder (\"causal\": false): it reads whole sequences, there is no stream to go on along");
}

void check_tokens(const Model& model, std::span<const Token> tokens) {
  for (Token token : tokens)
    if (token < 0 || token >= model.card().vocab)
      fail("token ", token, " is outside the vocabulary of ", model.card().vocab, " of model '",
           model.card().name, "'");
}

namespace {

constexpr Index kLogitRows = 64;  // rows of logits at a time: bounds memory for large vocabularies

// Rows of one item in a pass.
struct Rows {
  std::size_t item;
  Slice slice;
};

class Batch {
 public:
  Batch(const Model& model, const RunOptions& options, const LogitSink& sink, std::span<const Item> items)
      : model_(model),
        sink_(sink),
        items_(items),
        walk_(model, options.compute, options.observer, options.watches),
        workspace_(model) {
    for (const Item& item : items)
      item_end_.push_back(item.sequence->position + static_cast<Index>(item.tokens.size()));
  }

  // One pass over the nodes; afterwards the sequences stand after their rows.
  void pass(std::span<const Rows> all, std::span<const Token> tokens) {
    std::vector<Slice> slices;
    for (const Rows& rows : all) slices.push_back(rows.slice);
    for (int n = 0; n < model_.graph().output(); ++n) {
      for (std::size_t i = 0; i < all.size(); ++i)
        slices[i].state = &items_[all[i].item].sequence->states[static_cast<std::size_t>(n)];
      const View<float> output = workspace_.open(n, static_cast<Index>(tokens.size()));
      const auto inputs = workspace_.inputs(n);
      walk_.run_node(n, slices, {inputs, output, tokens});
      workspace_.close(n);
    }
    logits(all, tokens);
    workspace_.close(model_.graph().output());
    for (const Rows& rows : all) items_[rows.item].sequence->position += rows.slice.rows;
  }

 private:
  struct Wanted {
    std::size_t item;
    Slice slice;  // of one row
  };

  std::vector<Wanted> wanted(std::span<const Rows> all) const {
    std::vector<Wanted> rows;
    for (const auto& [index, slice] : all) {
      const Item& item = items_[index];
      const bool last = item_end_[index] == slice.position + slice.rows;
      for (Index r = 0; r < slice.rows; ++r)
        if (item.want == Want::all || (item.want == Want::last && last && r == slice.rows - 1))
          rows.push_back(
              {index, {slice.plan, nullptr, slice.position + r, slice.first_row + r, 1, slice.origin}});
    }
    return rows;
  }

  // The output node runs only where logits are wanted, a bounded number of rows at a time.
  void logits(std::span<const Rows> all, std::span<const Token> tokens) {
    const std::vector<Wanted> rows = wanted(all);
    for (std::size_t first = 0; first < rows.size(); first += kLogitRows)
      logit_block(std::span(rows).subspan(first, std::min<std::size_t>(rows.size() - first, kLogitRows)),
                  tokens);
  }

  void logit_block(std::span<const Wanted> rows, std::span<const Token> tokens) {
    std::vector<Slice> slices;
    for (const Wanted& row : rows) slices.push_back(row.slice);
    Arena::Scope scope(scratch());
    const View<float> output = walk_.gathered_output(slices, workspace_, tokens, scope);
    for (std::size_t r = 0; r < rows.size(); ++r)
      if (sink_)
        sink_(rows[r].item, rows[r].slice.position,
              {output.row(static_cast<Index>(r)), static_cast<std::size_t>(output.cols)});
  }

  const Model& model_;
  const LogitSink& sink_;
  std::span<const Item> items_;
  std::vector<Index> item_end_;  // position after each item's last token
  Walk walk_;
  Workspace workspace_;
};

}  // namespace

void run_batch(const Model& model, std::span<const Item> items, const RunOptions& options,
               const LogitSink& sink) {
  for (const Item& item : items) check_tokens(model, item.tokens);
  const FloatEnvironment environment;
  Batch batch(model, options, sink, items);
  std::vector<std::size_t> done(items.size(), 0);
  for (;;) {
    std::vector<Rows> all;
    std::vector<Token> tokens;
    for (std::size_t i = 0; i < items.size(); ++i) {
      const auto room = static_cast<std::size_t>(options.row_block) - tokens.size();
      const auto rows = std::min(room, items[i].tokens.size() - done[i]);
      if (rows == 0) continue;
      const Sequence& sequence = *items[i].sequence;
      all.push_back({i,
                     {sequence.plan.get(), nullptr, sequence.position, static_cast<Index>(tokens.size()),
                      static_cast<Index>(rows), items[i].origin}});
      const auto piece = items[i].tokens.subspan(done[i], rows);
      tokens.insert(tokens.end(), piece.begin(), piece.end());
      done[i] += rows;
    }
    if (all.empty()) return;
    batch.pass(all, tokens);
  }
}

}  // namespace plait
