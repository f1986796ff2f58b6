#include "runtime/run/batch.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <map>

#include "runtime/base/arena.h"
#include "runtime/base/error.h"
#include "runtime/base/parallel.h"

namespace plait {

namespace {

bool node_level(const Edit& edit) { return edit.site == Site::output; }
bool is_reset(const Edit& edit) {
  return edit.site == Site::state && (edit.op == Operator::reset || edit.op == Operator::reset_every);
}

bool supports(const Layer& layer, const Edit& edit) {
  if (is_reset(edit)) return !layer.fields().empty();
  for (const SiteSpec& spec : layer.sites())
    if (spec.site == edit.site)
      return std::find(spec.operators.begin(), spec.operators.end(), edit.op) != spec.operators.end();
  return false;
}

// A partial zero is a scale; other operators know no half measures.
Edit with_full_strength(Edit edit) {
  const bool zero = edit.op == Operator::zero, scale = edit.op == Operator::scale;
  const bool scalable = edit.site == Site::output || edit.site == Site::head;
  if (edit.strength == 1) return edit;
  if (!scalable || !(zero || scale))
    fail("edit of '", edit.node, "': ", name_of(edit.site), "/", name_of(edit.op),
         " takes strength 0 or 1, found ", edit.strength);
  if (zero) edit.values.clear();
  for (double& value : edit.values) value = 1 + edit.strength * (value - 1);
  edit.value = zero ? 1 - edit.strength : 1 + edit.strength * (edit.value - 1);
  edit.op = Operator::scale;
  edit.strength = 1;
  return edit;
}

}  // namespace

class EditPlan::Builder {
 public:
  Builder(EditPlan& plan, const Model& model) : plan_(plan), model_(model) {}

  void place(const Edit& edit) {
    const Graph& graph = model_.graph();
    const Group* group = graph.group(edit.node);
    const int node = graph.find(edit.node);
    if (!group && node < 0) fail("edit: the model has no node or group '", edit.node, "'");
    if (!node_level(edit))
      place_inner(edit, group ? group->nodes : std::vector<int>{node});
    else if (edit.op == Operator::skip)
      place_skip(edit, group, node);
    else if (edit.op == Operator::zero || edit.op == Operator::scale)
      for (int n : group ? group->contributions : std::vector<int>{node})
        add(n, edit, edit.op == Operator::zero ? Action::zero : Action::scale);
    else
      fail("edit of '", edit.node, "': a node's output takes zero, scale or skip, not ", name_of(edit.op));
  }

 private:
  void add(int node, const Edit& edit, Action action) {
    plan_.entries_[static_cast<std::size_t>(node)].push_back({&edit, action});
  }

  void place_inner(const Edit& edit, const std::vector<int>& nodes) {
    if (edit.site == Site::conv && !edit.heads.empty())
      fail("edit of '", edit.node, "': a convolution has channels, not heads; conv/", name_of(edit.op),
           " takes no 'heads'");
    bool placed = false;
    for (int n : nodes) {
      if (!supports(model_.layer(n), edit)) continue;
      add(n, edit, is_reset(edit) ? Action::reset : Action::inner);
      placed = true;
    }
    if (!placed) fail("edit: ", describe(edit.node), " has no ", name_of(edit.site), "/", name_of(edit.op));
  }

  std::string describe(const std::string& name) const {
    const int node = model_.graph().find(name);
    return node < 0 ? cat("no layer of group '", name, "'")
                    : cat("node '", name, "' (", model_.kind(node).key, ")");
  }

  void place_skip(const Edit& edit, const Group* group, int node) {
    if (!group) {
      const auto& groups = model_.graph().groups;
      const bool contributes = std::any_of(groups.begin(), groups.end(), [&](const Group& g) {
        return std::find(g.contributions.begin(), g.contributions.end(), node) != g.contributions.end();
      });
      if (!contributes)
        fail("edit: node '", edit.node,
             "' cannot be skipped, it is not a residual contribution; name its block or step");
      return add(node, edit, Action::skip);
    }
    std::vector<bool> passes(model_.graph().nodes.size(), false);
    for (int n = group->output; n != group->residual;) {
      const Node& add_node = model_.graph().nodes[static_cast<std::size_t>(n)];
      if (add_node.kind != "add" || n < group->residual)
        fail("edit: group '", group->name,
             "' cannot be skipped, its output is not a chain of adds to its residual");
      passes[static_cast<std::size_t>(n)] = true;
      n = add_node.inputs[0];
    }
    for (int n : group->nodes)
      add(n, edit, passes[static_cast<std::size_t>(n)] ? Action::pass : Action::skip);
  }

  EditPlan& plan_;
  const Model& model_;
};

EditPlan::EditPlan(const Model& model, EditList edits) : entries_(model.graph().nodes.size()) {
  for (const Edit& edit : edits)
    if (edit.strength != 0) edits_.push_back(with_full_strength(edit));
  Builder builder(*this, model);
  for (const Edit& edit : edits_) builder.place(edit);
}

Sequence::Sequence(const Model& model, Index rollback_depth) {
  for (int n = 0; n < model.node_count(); ++n) states.emplace_back(model.layer(n).fields(), rollback_depth);
}

// The walk.

namespace {

constexpr Index kLogitRows = 64;  // rows of logits at a time: bounds memory for large vocabularies

// Rows of one item in this pass.
struct Slice {
  std::size_t item;
  Sequence* sequence;
  Index position, first_row, rows;
  Origin origin;
};

// A piece of a slice under which the same edits of one node are active.
struct Piece {
  const Slice* slice;
  Index position, first_row, rows;
  std::vector<EditPlan::Entry> active;
  Edits inner;

  const EditPlan::Entry* find(EditPlan::Action action) const {
    for (const auto& entry : active)
      if (entry.action == action) return &entry;
    return nullptr;
  }
};

bool in_phase(const Edit& edit, Index position, Origin origin) {
  switch (edit.phase) {
    case Phase::always:
      return true;
    case Phase::prefill:
      return origin == Origin::given;
    case Phase::decode:
      return origin == Origin::sampled;
    case Phase::after_prefix:
      return position >= edit.prefix_tokens;
  }
  return true;
}

bool active_at(const Edit& edit, Index position, Origin origin) {
  return position >= edit.begin && (edit.end < 0 || position < edit.end) && in_phase(edit, position, origin);
}

Index period_of(const Edit& edit) { return std::max<Index>(1, static_cast<Index>(edit.value)); }

bool resets_at(const Edit& edit, Index position) {
  if (edit.op == Operator::reset_every) return position > 0 && position % period_of(edit) == 0;
  return position ==
         (edit.phase == Phase::after_prefix ? std::max(edit.begin, edit.prefix_tokens) : edit.begin);
}

// Positions inside the slice where some edit of the node begins, ends or resets.
std::vector<Index> cuts_of(std::span<const EditPlan::Entry> entries, const Slice& slice) {
  const Index begin = slice.position, end = slice.position + slice.rows;
  std::vector<Index> cuts = {begin, end};
  const auto cut = [&](Index p) {
    if (p > begin && p < end) cuts.push_back(p);
  };
  for (const auto& entry : entries) {
    cut(entry.edit->begin);
    cut(entry.edit->end);
    if (entry.edit->phase == Phase::after_prefix) cut(entry.edit->prefix_tokens);
    if (entry.action == EditPlan::Action::reset && entry.edit->op == Operator::reset_every) {
      const Index period = period_of(*entry.edit);
      for (Index p = round_up(begin, period); p < end; p += period) cut(p);
    }
  }
  std::sort(cuts.begin(), cuts.end());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  return cuts;
}

std::vector<Piece> pieces_of(int node, const Slice& slice) {
  const EditPlan* plan = slice.sequence->plan.get();
  if (!plan || plan->of(node).empty()) return {{&slice, slice.position, slice.first_row, slice.rows, {}, {}}};
  const auto entries = plan->of(node);
  const std::vector<Index> cuts = cuts_of(entries, slice);
  std::vector<Piece> pieces;
  for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
    Piece piece{&slice, cuts[i], slice.first_row + cuts[i] - slice.position, cuts[i + 1] - cuts[i], {}, {}};
    for (const auto& entry : entries) {
      if (!active_at(*entry.edit, piece.position, slice.origin)) continue;
      piece.active.push_back(entry);
      if (entry.action == EditPlan::Action::inner) piece.inner.add(entry.edit);
    }
    pieces.push_back(std::move(piece));
  }
  return pieces;
}

// Node outputs of one pass. A buffer goes back to the pool after its last reader.
class Workspace {
 public:
  explicit Workspace(const Model& model)
      : model_(model), views_(size()), last_use_(size(), -1), held_(size()) {
    for (int n = 0; n < model.node_count(); ++n)
      for (int input : model.graph().nodes[static_cast<std::size_t>(n)].inputs)
        last_use_[static_cast<std::size_t>(input)] = n;
  }

  View<float> open(int node, Index rows) {
    const Index width = model_.width(node);
    const std::size_t bytes = static_cast<std::size_t>(rows * width) * sizeof(float);
    auto& pool = pool_[width];
    Buffer buffer;
    if (!pool.empty() && pool.back().bytes() >= bytes) {
      buffer = std::move(pool.back());
      pool.pop_back();
    } else {
      buffer = Buffer(bytes);
    }
    poison(buffer.as<float>(), bytes);
    auto& view = views_[static_cast<std::size_t>(node)];
    view = View<float>(buffer.as<float>(), rows, width);
    held_[static_cast<std::size_t>(node)] = std::move(buffer);
    return view;
  }

  std::vector<View<const float>> inputs(int node) const {
    std::vector<View<const float>> all;
    for (int input : model_.graph().nodes[static_cast<std::size_t>(node)].inputs)
      all.push_back(views_[static_cast<std::size_t>(input)]);
    return all;
  }

  // Gives back what nobody after `node` reads.
  void close(int node) {
    for (int input : model_.graph().nodes[static_cast<std::size_t>(node)].inputs)
      if (last_use_[static_cast<std::size_t>(input)] == node) release(input);
    if (last_use_[static_cast<std::size_t>(node)] < 0) release(node);
  }

 private:
  std::size_t size() const { return static_cast<std::size_t>(model_.node_count()); }
  void release(int node) {
    Buffer& buffer = held_[static_cast<std::size_t>(node)];
    if (buffer.bytes() > 0) pool_[model_.width(node)].push_back(std::move(buffer));
    buffer = Buffer();
  }

  const Model& model_;
  std::vector<View<float>> views_;
  std::vector<int> last_use_;
  std::vector<Buffer> held_;
  std::map<Index, std::vector<Buffer>> pool_;
};

class Walk {
 public:
  Walk(const Model& model, const RunOptions& options, const LogitSink& sink, std::span<const Item> items)
      : model_(model),
        options_(options),
        sink_(sink),
        items_(items),
        context_{options.compute},
        workspace_(model) {
    for (const Item& item : items)
      item_end_.push_back(item.sequence->position + static_cast<Index>(item.tokens.size()));
    for (int n = 0; n < model.node_count(); ++n) {
      const bool table =
          model.graph().nodes[static_cast<std::size_t>(n)].inputs.empty();  // rows are looked up
      Index elements = 0;
      for (const auto& [name, tensor] : model.parameters(n).all()) elements += element_count(tensor.shape);
      matrix_elements_.push_back(table ? model.width(n) : elements);
    }
  }

  // One pass over the nodes with these slices; afterwards the sequences stand after their rows.
  void pass(const std::vector<Slice>& slices, Index rows, std::span<const Token> tokens) {
    for (int n = 0; n < model_.graph().output(); ++n) {
      const View<float> output = workspace_.open(n, rows);
      const auto inputs = workspace_.inputs(n);
      run_node(n, slices, {inputs, output, tokens});
      workspace_.close(n);
    }
    logits(slices, tokens);
    workspace_.close(model_.graph().output());
    for (const Slice& slice : slices) slice.sequence->position += slice.rows;
  }

 private:
  void run_node(int node, const std::vector<Slice>& slices, const Ports& ports) {
    std::vector<std::vector<Piece>> pieces;
    std::size_t waves = 0;
    for (const Slice& slice : slices) {
      pieces.push_back(pieces_of(node, slice));
      waves = std::max(waves, pieces.back().size());
    }
    // A layer sees at most one segment of a sequence per call, because a later one depends on the earlier
    // one's state.
    for (std::size_t wave = 0; wave < waves; ++wave) {
      std::vector<Piece*> now;
      for (auto& list : pieces)
        if (wave < list.size()) now.push_back(&list[wave]);
      run_pieces(node, now, ports);
    }
  }

  void run_pieces(int node, const std::vector<Piece*>& pieces, const Ports& ports) {
    const Layer& layer = model_.layer(node);
    std::vector<Segment> segments;
    for (Piece* piece : pieces) {
      const View<float> rows = ports.output.slice_rows(piece->first_row, piece->rows);
      if (piece->find(EditPlan::Action::pass)) {
        copy(ports.inputs[0].slice_rows(piece->first_row, piece->rows), rows);
      } else if (piece->find(EditPlan::Action::skip)) {
        scale(rows, 0);
      } else {
        State* state = layer.fields().empty() ? nullptr : prepare(node, *piece);
        segments.push_back({state, piece->position, piece->first_row, piece->rows,
                            piece->inner.empty() ? nullptr : &piece->inner});
      }
    }
    if (!segments.empty()) run_layer(node, ports, segments);
    for (const Segment& segment : segments)
      if (segment.state) segment.state->advance(segment.position + segment.rows);
    for (const Piece* piece : pieces) rescale(*piece, ports.output.slice_rows(piece->first_row, piece->rows));
    if (options_.observer && !segments.empty()) options_.observer(node, ports, segments);
  }

  // Threads change no bit, so they may be chosen by the work: a few rows through a small node are done before
  // a second thread has woken up, and waiting for it costs far more where cores are shared.
  void run_layer(int node, const Ports& ports, std::span<const Segment> segments) {
    constexpr double kWorthThreads = 1 << 21;  // multiplications
    double work = 0;
    for (const Segment& segment : segments) {
      Index per_row = matrix_elements_[static_cast<std::size_t>(node)];
      for (const Field& field : model_.layer(node).fields())
        if (field.kind == Field::Kind::log && field.window == 0) per_row += field.width() * segment.position;
      work += static_cast<double>(segment.rows) * static_cast<double>(per_row);
    }
    Context context = context_;
    if (work < kWorthThreads) context.compute.threads = 1;
    model_.layer(node).run(ports, segments, context);
  }

  // Brings the state to the piece's first row: fills the hole that skipped rows left, applies a reset.
  State* prepare(int node, const Piece& piece) {
    State& state = piece.slice->sequence->states[static_cast<std::size_t>(node)];
    while (state.position() < piece.position) {
      const Index reached = state.fill_hole(piece.position);
      if (state.grid() > 0 && reached % state.grid() == 0) {
        state.before_fold(reached, piece.position);
        model_.layer(node).fold(state, reached, context_);
      }
    }
    for (const auto& entry : piece.active)
      if (entry.action == EditPlan::Action::reset && resets_at(*entry.edit, piece.position))
        state.reset_before(piece.position, entry.edit->reset_conv ? State::Logs::hide : State::Logs::keep);
    return &state;
  }

  static void rescale(const Piece& piece, View<float> rows) {
    for (const auto& entry : piece.active) {
      if (entry.action == EditPlan::Action::zero) scale(rows, 0);
      if (entry.action == EditPlan::Action::scale) scale(rows, static_cast<float>(entry.edit->value));
    }
  }

  static void scale(View<float> rows, float factor) {
    for (Index r = 0; r < rows.rows; ++r)
      for (Index c = 0; c < rows.cols; ++c) rows.row(r)[c] = factor == 0 ? 0.0f : rows.row(r)[c] * factor;
  }

  static void copy(View<const float> from, View<float> to) {
    for (Index r = 0; r < from.rows; ++r)
      std::memcpy(to.row(r), from.row(r), static_cast<std::size_t>(from.cols) * sizeof(float));
  }

  struct Wanted {
    const Slice* slice;
    Index row, position;
  };

  std::vector<Wanted> wanted(const std::vector<Slice>& slices) const {
    std::vector<Wanted> rows;
    for (const Slice& slice : slices) {
      const Item& item = items_[slice.item];
      const bool last = item_end_[slice.item] == slice.position + slice.rows;
      for (Index r = 0; r < slice.rows; ++r)
        if (item.want == Want::all || (item.want == Want::last && last && r == slice.rows - 1))
          rows.push_back({&slice, slice.first_row + r, slice.position + r});
    }
    return rows;
  }

  // The output node runs only where logits are wanted, a bounded number of rows at a time.
  void logits(const std::vector<Slice>& slices, std::span<const Token> tokens) {
    const std::vector<Wanted> rows = wanted(slices);
    const auto inputs = workspace_.inputs(model_.graph().output());
    for (std::size_t first = 0; first < rows.size(); first += kLogitRows) {
      const auto count = std::min(rows.size() - first, static_cast<std::size_t>(kLogitRows));
      logit_block({rows.data() + first, count}, inputs, tokens);
    }
  }

  void logit_block(std::span<const Wanted> rows, const std::vector<View<const float>>& inputs,
                   std::span<const Token> tokens) {
    const int node = model_.graph().output();
    const auto count = static_cast<Index>(rows.size());
    Arena::Scope scope(scratch());
    std::vector<View<const float>> compact;
    std::vector<Token> compact_tokens;
    for (const Wanted& w : rows) compact_tokens.push_back(tokens[static_cast<std::size_t>(w.row)]);
    for (const View<const float>& input : inputs) {
      const View<float> gathered = scope.rows(count, input.cols);
      for (Index r = 0; r < count; ++r)
        copy(input.slice_rows(rows[static_cast<std::size_t>(r)].row, 1), gathered.slice_rows(r, 1));
      compact.push_back(gathered);
    }
    const View<float> output = scope.rows(count, model_.width(node));
    const Segment segment{nullptr, rows[0].position, 0, count, nullptr};
    const Ports ports{compact, output, compact_tokens};
    run_layer(node, ports, {&segment, 1});
    for (Index r = 0; r < count; ++r) {
      const Wanted& w = rows[static_cast<std::size_t>(r)];
      const Slice one{w.slice->item, w.slice->sequence, w.position, r, 1, w.slice->origin};
      for (const Piece& piece : pieces_of(node, one)) rescale(piece, output.slice_rows(r, 1));
      if (sink_) sink_(w.slice->item, w.position, {output.row(r), static_cast<std::size_t>(output.cols)});
    }
    if (options_.observer) options_.observer(node, ports, {&segment, 1});
  }

  const Model& model_;
  const RunOptions& options_;
  const LogitSink& sink_;
  std::span<const Item> items_;
  std::vector<Index> item_end_;         // position after each item's last token
  std::vector<Index> matrix_elements_;  // by node: multiplications a row costs, about
  Context context_;
  Workspace workspace_;
};

void check_tokens(const Model& model, std::span<const Item> items) {
  for (const Item& item : items)
    for (Token token : item.tokens)
      if (token < 0 || token >= model.card().vocab)
        fail("token ", token, " is outside the vocabulary of ", model.card().vocab, " of model '",
             model.card().name, "'");
}

}  // namespace

void run_batch(const Model& model, std::span<const Item> items, const RunOptions& options,
               const LogitSink& sink) {
  check_tokens(model, items);
  const FloatEnvironment environment;
  Walk walk(model, options, sink, items);
  std::vector<std::size_t> done(items.size(), 0);
  for (;;) {
    std::vector<Slice> slices;
    std::vector<Token> tokens;
    for (std::size_t i = 0; i < items.size(); ++i) {
      const auto room = static_cast<std::size_t>(options.row_block) - tokens.size();
      const auto rows = std::min(room, items[i].tokens.size() - done[i]);
      if (rows == 0) continue;
      slices.push_back({i, items[i].sequence, items[i].sequence->position, static_cast<Index>(tokens.size()),
                        static_cast<Index>(rows), items[i].origin});
      const auto piece = items[i].tokens.subspan(done[i], rows);
      tokens.insert(tokens.end(), piece.begin(), piece.end());
      done[i] += rows;
    }
    if (slices.empty()) return;
    walk.pass(slices, static_cast<Index>(tokens.size()), tokens);
  }
}

}  // namespace plait
