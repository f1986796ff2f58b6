#include "runtime/run/walk.h"

#include <algorithm>
#include <cstring>

namespace plait {
namespace {

void clear(View<float> rows) {
  for (Index r = 0; r < rows.rows; ++r) std::fill_n(rows.row(r), rows.cols, 0.0f);
}

void copy(View<const float> from, View<float> to) {
  for (Index r = 0; r < from.rows; ++r)
    std::memcpy(to.row(r), from.row(r), static_cast<std::size_t>(from.cols) * sizeof(float));
}

}  // namespace

Workspace::Workspace(const Model& model)
    : model_(model), views_(size()), last_use_(size(), -1), held_(size()) {
  for (int n = 0; n < model.node_count(); ++n)
    for (int input : model.graph().nodes[static_cast<std::size_t>(n)].inputs)
      last_use_[static_cast<std::size_t>(input)] = n;
}

View<float> Workspace::open(int node, Index rows) {
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

std::vector<View<const float>> Workspace::inputs(int node) const {
  std::vector<View<const float>> all;
  for (int input : model_.graph().nodes[static_cast<std::size_t>(node)].inputs)
    all.push_back(views_[static_cast<std::size_t>(input)]);
  return all;
}

void Workspace::close(int node) {
  for (int input : model_.graph().nodes[static_cast<std::size_t>(node)].inputs)
    if (last_use_[static_cast<std::size_t>(input)] == node) release(input);
  if (last_use_[static_cast<std::size_t>(node)] < 0) release(node);
}

void Workspace::copy_rows(Index from, Index to, Index rows) {
  for (std::size_t n = 0; n < size(); ++n)
    if (held_[n].bytes() > 0) copy(views_[n].slice_rows(from, rows), views_[n].slice_rows(to, rows));
}

Index Workspace::widest() const {
  Index alive = 0, most = 0;
  std::vector<Index> given_back(size() + 1, 0);
  for (int n = 0; n < model_.node_count(); ++n) {
    alive += n == model_.graph().output() ? 0 : model_.width(n);
    most = std::max(most, alive);
    for (std::size_t m = 0; m < size(); ++m)
      if (last_use_[m] == n) alive -= model_.width(static_cast<int>(m));
  }
  return most;
}

void Workspace::release(int node) {
  Buffer& buffer = held_[static_cast<std::size_t>(node)];
  if (buffer.bytes() > 0) pool_[model_.width(node)].push_back(std::move(buffer));
  buffer = Buffer();
}

Walk::Walk(const Model& model, const Compute& compute, Observer observer, InnerWatches watches)
    : model_(model), context_{compute}, observer_(std::move(observer)), watches_(std::move(watches)) {
  for (int n = 0; n < model.node_count(); ++n) {
    const bool table = model.graph().nodes[static_cast<std::size_t>(n)].inputs.empty();  // rows are looked up
    Index elements = 0;
    for (const auto& [name, tensor] : model.parameters(n).all()) elements += element_count(tensor.shape);
    multiplications_.push_back(table ? model.width(n) : elements);
  }
}

double Walk::row_cost() const {
  double sum = 0;
  for (int n = 0; n < model_.graph().output(); ++n)
    sum += static_cast<double>(multiplications_[static_cast<std::size_t>(n)]);
  return sum;
}

double Walk::output_row_cost() const {
  return static_cast<double>(multiplications_[static_cast<std::size_t>(model_.graph().output())]);
}

void Walk::run_node(int node, std::span<const Slice> slices, const Ports& ports) {
  std::vector<std::vector<Placed>> pieces;
  std::size_t waves = 0;
  for (const Slice& slice : slices) {
    const auto entries = slice.plan ? slice.plan->of(node) : std::span<const EditPlan::Entry>();
    auto& placed = pieces.emplace_back();
    for (Piece& piece : pieces_of(entries, slice.position, slice.rows, slice.origin)) {
      const Index first_row = slice.first_row + piece.position - slice.position;
      piece.inner.set_layer(static_cast<std::uint64_t>(node));
      placed.push_back({std::move(piece), &slice, first_row});
    }
    waves = std::max(waves, placed.size());
  }
  // A layer sees at most one segment of a sequence per call, because a later one depends on the earlier one's
  // state.
  for (std::size_t wave = 0; wave < waves; ++wave) {
    std::vector<Placed*> now;
    for (auto& list : pieces)
      if (wave < list.size()) now.push_back(&list[wave]);
    run_pieces(node, now, ports);
  }
}

void Walk::run_pieces(int node, std::span<Placed* const> pieces, const Ports& ports) {
  const Layer& layer = model_.layer(node);
  InnerWatch* const watch = watches_ ? watches_(node) : nullptr;
  std::vector<Segment> segments;
  for (Placed* placed : pieces) {
    const Piece& piece = placed->piece;
    const Slice& slice = *placed->slice;
    const View<float> rows = ports.output.slice_rows(placed->first_row, piece.rows);
    if (piece.has(EditPlan::Action::pass)) {
      copy(ports.inputs[0].slice_rows(placed->first_row, piece.rows), rows);
    } else if (piece.has(EditPlan::Action::skip)) {
      clear(rows);
    } else {
      State* state = layer.fields().empty() ? nullptr : prepare(node, *placed);
      segments.push_back({state, piece.position, placed->first_row, piece.rows,
                          piece.inner.empty() ? nullptr : &piece.inner, piece.inner.empty() ? watch : nullptr,
                          slice.clean_row < 0 ? -1 : slice.clean_row + placed->first_row - slice.first_row});
    }
  }
  // Rows of one call bound the layer's scratch; the weights of a node are read from memory once per call.
  constexpr Index kRowsPerCall = 2048;
  for (std::size_t first = 0; first < segments.size();) {
    Index rows = 0;
    std::size_t end = first;
    while (end < segments.size() && (end == first || rows + segments[end].rows <= kRowsPerCall))
      rows += segments[end++].rows;
    run_layer(node, ports, std::span(segments).subspan(first, end - first));
    first = end;
  }
  for (const Segment& segment : segments)
    if (segment.state) segment.state->advance(segment.position + segment.rows);
  for (const Placed* placed : pieces)
    edit_output(placed->piece, node, ports.output.slice_rows(placed->first_row, placed->piece.rows));
  if (observer_ && !segments.empty()) observer_(node, ports, segments);
}

// Threads change no bit, so they may be chosen by the work: a few rows through a small node are done before a
// second thread has woken up, and waiting for it costs far more where cores are shared.
void Walk::run_layer(int node, const Ports& ports, std::span<const Segment> segments) {
  constexpr double kWorthThreads = 1 << 21;  // multiplications
  double work = 0, weights = 0;
  for (const Segment& segment : segments) {
    const Index per_row = multiplications_[static_cast<std::size_t>(node)];
    Index per_key = 0;
    for (const Field& field : model_.layer(node).fields())
      if (field.kind == Field::Kind::log && field.window == 0) per_key += field.width() * segment.position;
    weights += static_cast<double>(segment.rows) * static_cast<double>(per_row);
    work += static_cast<double>(segment.rows) * static_cast<double>(per_row + per_key);
  }
  if (node != model_.graph().output()) work_ += weights;
  Context context = context_;
  if (work < kWorthThreads) context.compute.threads = 1;
  model_.layer(node).run(ports, segments, context);
}

// Brings the state to the piece's first row: fills the hole that skipped rows left, applies a reset or a
// swap.
State* Walk::prepare(int node, const Placed& placed) {
  State& state = *placed.slice->state;
  state.remember(placed.slice->plan ? placed.slice->plan->memory(node) : State::Memory());
  const Index position = placed.piece.position;
  while (state.position() < position) {
    const Index reached = state.fill_hole(position);
    if (state.grid() > 0 && reached % state.grid() == 0) {
      state.before_fold(reached, position);
      model_.layer(node).fold(state, reached, context_);
    }
  }
  for (const EditPlan::Entry* entry : placed.piece.active) {
    if (!happens_at(entry->edit, position)) continue;
    if (entry->action == EditPlan::Action::reset)
      state.reset_before(position, entry->edit.reset_conv ? State::Logs::hide : State::Logs::keep);
    if (entry->action == EditPlan::Action::swap) state.restore(entry->edit.recorded->state[0]);
  }
  return &state;
}

View<float> Walk::gathered_output(std::span<const Slice> rows, const Workspace& workspace,
                                  std::span<const Token> tokens, Arena::Scope& scope) {
  const int node = model_.graph().output();
  const auto count = static_cast<Index>(rows.size());
  std::vector<Token> chosen;
  for (const Slice& row : rows) chosen.push_back(tokens[static_cast<std::size_t>(row.first_row)]);
  std::vector<View<const float>> inputs;
  for (const View<const float>& input : workspace.inputs(node)) {
    const View<float> gathered = scope.rows(count, input.cols);
    for (Index r = 0; r < count; ++r)
      copy(input.slice_rows(rows[static_cast<std::size_t>(r)].first_row, 1), gathered.slice_rows(r, 1));
    inputs.push_back(gathered);
  }
  const Ports ports{inputs, scope.rows(count, model_.width(node)), chosen};
  const Segment segment{nullptr, rows[0].position, 0, count, nullptr};
  run_layer(node, ports, {&segment, 1});
  for (Index r = 0; r < count; ++r) {
    const Slice& row = rows[static_cast<std::size_t>(r)];
    if (!row.plan) continue;
    for (const Piece& piece : pieces_of(row.plan->of(node), row.position, 1, row.origin))
      edit_output(piece, node, ports.output.slice_rows(r, 1));
  }
  if (observer_) observer_(node, ports, {&segment, 1});
  return ports.output;
}

}  // namespace plait
