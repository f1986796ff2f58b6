#include "runtime/run/edit_plan.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "runtime/base/error.h"
#include "runtime/base/random.h"
#include "runtime/run/edit_rows.h"

namespace plait {
namespace {

bool is_reset(const Edit& edit) {
  return edit.site == Site::state && (edit.op == Operator::reset || edit.op == Operator::reset_every);
}
bool is_swap(const Edit& edit) { return edit.site == Site::state && edit.op == Operator::swap; }

// Operators of the executor on a node's output rows.
bool on_rows(Operator op) {
  switch (op) {
    case Operator::zero:
    case Operator::scale:
    case Operator::mean:
    case Operator::resample:
    case Operator::noise:
    case Operator::patch:
      return true;
    default:
      return false;
  }
}

bool supports(const Layer& layer, const Edit& edit) {
  if (is_reset(edit) || is_swap(edit)) return !layer.fields().empty();
  for (const SiteSpec& spec : layer.sites())
    if (spec.site == edit.site)
      return std::find(spec.operators.begin(), spec.operators.end(), edit.op) != spec.operators.end();
  return false;
}

// A partial zero is a scale; what replaces rows is mixed in as it is applied; other operators know no half
// measures.
Edit with_full_strength(Edit edit) {
  if (edit.strength == 1) return edit;
  const bool output = edit.site == Site::output || edit.site == Site::residual;
  const bool zero = edit.op == Operator::zero, scale = edit.op == Operator::scale;
  if (output && on_rows(edit.op) && !zero && !scale) return edit;
  if (!(output || edit.site == Site::head) || !(zero || scale))
    fail("edit of '", edit.node, "': ", name_of(edit.site), "/", name_of(edit.op),
         " takes strength 0 or 1, found ", edit.strength);
  if (zero) edit.values.clear();
  for (double& value : edit.values) value = 1 + edit.strength * (value - 1);
  edit.value = zero ? 1 - edit.strength : 1 + edit.strength * (edit.value - 1);
  edit.op = Operator::scale;
  edit.strength = 1;
  return edit;
}

bool is_stale(const Edit& edit) { return edit.site == Site::state && edit.op == Operator::stale; }

// An edit that comes after every token leaves no rows from which the states between boundaries could be read;
// a swapped state comes without its past.
void refuse_stale_beside(std::span<const EditPlan::Entry> entries) {
  const auto stale =
      std::find_if(entries.begin(), entries.end(), [](const auto& entry) { return is_stale(entry.edit); });
  if (stale == entries.end()) return;
  for (const auto& [edit, action] : entries)
    if (is_swap(edit) || (edit.site == Site::state && edit.every == Every::token))
      fail("edit of '", stale->edit.node, "': state/stale cannot stand beside state/", name_of(edit.op),
           is_swap(edit) ? "" : " every token", " of '", edit.node,
           "', which leaves no earlier states to read");
}

// An encoder's rows are computed together and nothing of them is kept.
void refuse_along_a_stream(const Edit& edit) {
  if (edit.begin != 0 || edit.end >= 0 || edit.phase != Phase::always)
    fail("edit of '", edit.node,
         "': an encoder reads a sequence whole; 'tokens' and 'phase' are for streams");
  if (edit.site == Site::state) fail("edit of '", edit.node, "': an encoder keeps no state to edit");
}

}  // namespace

class EditPlan::Builder {
 public:
  Builder(EditPlan& plan, const Model& model, const References& references)
      : plan_(plan), model_(model), references_(references) {}

  void place(const Edit& edit) {
    const Graph& graph = model_.graph();
    const Group* group = graph.group(edit.node);
    const int node = graph.find(edit.node);
    if (!group && node < 0) fail("edit: the model has no node or group '", edit.node, "'");
    if (edit.site == Site::residual)
      place_residual(edit, group, node);
    else if (edit.site != Site::output)
      place_inner(edit, group ? group->nodes : std::vector<int>{node});
    else if (edit.op == Operator::skip)
      place_skip(edit, group, node);
    else if (edit.op == Operator::zero && edit.shadow == Shadow::off)
      place_unrun(edit, group, node);
    else if (edit.op == Operator::zero_rescale)
      place_zero_rescale(edit, group, node);
    else if (on_rows(edit.op))
      for (int n : group ? group->contributions : std::vector<int>{node}) add(n, edit, Action::output);
    else
      fail("edit of '", edit.node,
           "': a node's output takes zero, scale, skip, mean, resample, noise, patch or "
           "zero_rescale, not ",
           name_of(edit.op));
  }

 private:
  const Node& node_of(int node) const { return model_.graph().nodes[static_cast<std::size_t>(node)]; }

  void add(int node, Edit edit, Action action) {
    edit.recorded = recorded(node, edit);
    for (const Index channel : edit.channels)
      if (action == Action::output && channel >= model_.width(node))
        fail("edit of '", edit.node, "': channel ", channel, " of a node of ", model_.width(node),
             " channels");
    plan_.entries_[static_cast<std::size_t>(node)].push_back({std::move(edit), action});
  }

  // What the edit's reference holds of the node; null where the operator reads none.
  std::shared_ptr<const Recorded> recorded(int node, const Edit& edit) const {
    const bool output = edit.site == Site::output || edit.site == Site::residual;
    const bool rows = edit.op == Operator::mean || edit.op == Operator::resample ||
                      edit.op == Operator::patch || edit.op == Operator::zero_rescale;
    // Other edits of inner sites take their numbers from `values`.
    const bool reads = (output && rows) || edit.op == Operator::swap || !edit.reference.empty();
    if (!reads || is_beside(edit)) return nullptr;
    if (edit.reference.empty()) fail("edit of '", edit.node, "': ", name_of(edit.op), " needs a 'reference'");
    const auto recording = references_.find(edit.reference);
    if (recording == references_.end())
      fail("edit of '", edit.node, "': there is no reference '", edit.reference, "'");
    const auto found = recording->second->nodes.find(node_of(node).name);
    if (found == recording->second->nodes.end())
      fail("edit of '", edit.node, "': reference '", edit.reference, "' holds nothing of node '",
           node_of(node).name, "'");
    check_recorded(edit, *found->second);
    return found->second;
  }

  void check_recorded(const Edit& edit, const Recorded& recorded) const {
    const bool rows = edit.op == Operator::resample || edit.op == Operator::patch;
    if (rows && !takes_inner_rows(edit) && recorded.rows.empty())
      fail("edit of '", edit.node, "': ", name_of(edit.op), " needs a reference that kept rows; '",
           edit.reference, "' kept means only");
    if (edit.op == Operator::patch && (edit.end < 0 || edit.end > recorded.count))
      fail("edit of '", edit.node, "': patch needs 'tokens' within the ", recorded.count,
           " rows of reference '", edit.reference, "'");
    if (edit.op == Operator::swap && (recorded.state.empty() || recorded.position != edit.begin))
      fail("edit of '", edit.node, "': swap before token ", edit.begin,
           " needs a reference with a state there; '", edit.reference, "' has ",
           recorded.state.empty() ? cat("none") : cat("one at ", recorded.position));
  }

  void place_inner(const Edit& edit, const std::vector<int>& nodes) {
    if (edit.site == Site::conv && !edit.heads.empty())
      fail("edit of '", edit.node, "': a convolution has channels, not heads; conv/", name_of(edit.op),
           " takes no 'heads'");
    bool placed = false;
    for (int n : nodes) {
      if (!supports(model_.layer(n), edit)) continue;
      Edit own = edit;
      if (takes_inner_mean(edit)) own.values = inner_mean(n, edit);
      if (takes_inner_rows(edit)) take_rows(n, own);
      for (const SiteSpec& spec : model_.layer(n).sites())
        if (spec.site == edit.site) check(own, spec);
      add(n, std::move(own), is_reset(edit) ? Action::reset : is_swap(edit) ? Action::swap : Action::inner);
      placed = true;
    }
    if (!placed) fail("edit: ", describe(edit.node), " has no ", name_of(edit.site), "/", name_of(edit.op));
  }

  // Holds a reference against what the edit wants of it; gives a frozen norm its scales as values. Those of
  // the run without edits that nobody recorded are left to the executor.
  void take_rows(int node, Edit& edit) const {
    if (is_beside(edit)) return;
    const auto held = recorded(node, edit);
    const auto found = held->inner_rows.find(edit.site);
    if (found == held->inner_rows.end())
      fail("edit of '", edit.node, "': reference '", edit.reference, "' kept no rows of ", name_of(edit.site),
           " of node '", node_of(node).name, "'");
    if (edit.op != Operator::freeze) return;
    const auto& rows = found->second;
    const Index count = static_cast<Index>(rows.size()),
                end = edit.end < 0 ? count : std::min(count, edit.end);
    if (edit.begin < end) edit.values.assign(rows.begin() + edit.begin, rows.begin() + end);
  }

  bool is_beside(const Edit& edit) const {
    return takes_inner_rows(edit) && edit.reference == kClean && !references_.count(kClean);
  }

  std::vector<double> inner_mean(int node, const Edit& edit) const {
    const auto held = recorded(node, edit);
    const auto found = held->inner.find(edit.site);
    if (found == held->inner.end())
      fail("edit of '", edit.node, "': reference '", edit.reference, "' holds no mean of ",
           name_of(edit.site), " of node '", node_of(node).name, "'");
    return found->second;
  }

  std::string describe(const std::string& name) const {
    const int node = model_.graph().find(name);
    return node < 0 ? cat("no layer of group '", name, "'")
                    : cat("node '", name, "' (", model_.kind(node).key, ")");
  }

  // The residual stream where a block or step leaves it, or a node of the stream itself.
  void place_residual(const Edit& edit, const Group* group, int node) {
    if (!on_rows(edit.op))
      fail("edit of '", edit.node,
           "': the residual stream takes zero, scale, mean, resample, noise or patch, not ",
           name_of(edit.op));
    if (!group && node_of(node).kind != "add" && node_of(node).kind != "embedding")
      fail("edit of '", edit.node, "': ", describe(edit.node),
           " is no place of the residual stream; name a block, a "
           "step, an add or the embedding");
    add(group ? group->output : node, edit, Action::output);
  }

  // The chain of adds from a group's output down to its residual input.
  std::vector<bool> adds_of(const Group& group, const char* verb) const {
    std::vector<bool> adds(model_.graph().nodes.size(), false);
    for (int n = group.output; n != group.residual;) {
      if (node_of(n).kind != "add" || n < group.residual)
        fail("edit: group '", group.name, "' cannot be ", verb,
             ", its output is not a chain of adds to its residual");
      adds[static_cast<std::size_t>(n)] = true;
      n = node_of(n).inputs[0];
    }
    return adds;
  }

  // What another part of the model reads must be computed.
  void refuse_readers_inside(const Group& group) const {
    const auto inside = [&](int n) {
      return std::find(group.nodes.begin(), group.nodes.end(), n) != group.nodes.end();
    };
    for (int n = 0; n < model_.node_count(); ++n)
      for (int input : node_of(n).inputs)
        if (!inside(n) && inside(input) && input != group.output)
          fail("edit: group '", group.name, "' cannot be skipped, node '", node_of(n).name, "' reads '",
               node_of(input).name, "' inside it");
  }

  void place_skip(const Edit& edit, const Group* group, int node) {
    if (!group) {
      if (!contributes(node))
        fail("edit: node '", edit.node,
             "' cannot be skipped, it is not a residual contribution; name its block or step");
      return add(node, edit, Action::skip);
    }
    refuse_readers_inside(*group);
    const std::vector<bool> passes = adds_of(*group, "skipped");
    for (int n : group->nodes)
      add(n, edit, passes[static_cast<std::size_t>(n)] ? Action::pass : Action::skip);
  }

  bool contributes(int node) const {
    const auto& groups = model_.graph().groups;
    return std::any_of(groups.begin(), groups.end(), [&](const Group& g) {
      return std::find(g.contributions.begin(), g.contributions.end(), node) != g.contributions.end();
    });
  }

  // zero without running what only feeds the zeroed contributions.
  void place_unrun(const Edit& edit, const Group* group, int node) {
    std::set<int> unread;
    if (group)
      unread.insert(group->contributions.begin(), group->contributions.end());
    else
      unread.insert(node);
    const auto& nodes = model_.graph().nodes;
    for (bool grown = true; grown;) {
      grown = false;
      for (int n = 0; n < model_.graph().output(); ++n) {
        if (unread.count(n)) continue;
        bool read = false, fed = false;
        for (std::size_t reader = 0; reader < nodes.size(); ++reader) {
          const auto& inputs = nodes[reader].inputs;
          if (std::find(inputs.begin(), inputs.end(), n) == inputs.end()) continue;
          (unread.count(static_cast<int>(reader)) ? fed : read) = true;
        }
        if (fed && !read) grown = unread.insert(n).second;
      }
    }
    for (int n : unread) add(n, edit, Action::skip);
  }

  // The branch that is named is zeroed; the other branches of its step are scaled by one constant.
  void place_zero_rescale(const Edit& edit, const Group* group, int node) {
    if (group && group->contributions.size() == 1) node = group->contributions[0];
    const Group* step = node < 0 ? nullptr : step_of(node);
    if (!step)
      fail("edit: '", edit.node, "' is not one of several branches, so nothing remains to be rescaled");
    const auto found = references_.find(edit.reference);
    for (int n : step->contributions) {
      Edit one = edit;
      if (n == node) {
        one.op = Operator::zero;
        one.reference.clear();
      } else {
        if (found == references_.end()) recorded(n, edit);  // says what is missing
        const auto rest = recorded(n, edit);
        if (step->contributions.size() > 2)
          fail("edit: zero_rescale of '", edit.node, "': its step has ", step->contributions.size(),
               " branches; two are known");
        one.op = Operator::scale;
        one.value = rest->norm > 0 ? rest->step_norm / rest->norm : 1;
        one.reference.clear();
      }
      add(n, one, Action::output);
    }
  }

  // The residual step with several branches that `node` is one of; null if none.
  const Group* step_of(int node) const {
    for (const Group& group : model_.graph().groups) {
      const auto& all = group.contributions;
      const auto& added = node_of(group.output).inputs;
      const bool one_step =
          all.size() > 1 && std::equal(added.begin() + 1, added.end(), all.begin(), all.end());
      if (one_step && std::find(all.begin(), all.end(), node) != all.end()) return &group;
    }
    return nullptr;
  }

  EditPlan& plan_;
  const Model& model_;
  const References& references_;
};

EditPlan::EditPlan(const Model& model, EditList edits, const References& references)
    : entries_(model.graph().nodes.size()) {
  for (const Edit& edit : edits)
    if (edit.strength != 0) edits_.push_back(with_full_strength(edit));
  Builder builder(*this, model, references);
  for (const Edit& edit : edits_) {
    if (!model.card().causal) refuse_along_a_stream(edit);
    builder.place(edit);
  }
  for (const auto& entries : entries_) refuse_stale_beside(entries);
}

// When.

namespace {

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

Index first_position(const Edit& edit) {
  return edit.phase == Phase::after_prefix ? std::max(edit.begin, edit.prefix_tokens) : edit.begin;
}

// The first row whose state a stale read may ask for.
Index first_read(const Edit& edit) { return first_position(edit) - most_tokens_back(edit); }

// Positions inside (begin, end) where some edit begins, ends, resets or swaps.
std::vector<Index> cuts_of(std::span<const EditPlan::Entry> entries, Index begin, Index end) {
  std::vector<Index> cuts = {begin, end};
  const auto cut = [&](Index p) {
    if (p > begin && p < end) cuts.push_back(p);
  };
  for (const auto& [edit, action] : entries) {
    cut(first_position(edit));
    cut(edit.end);
    if (action == EditPlan::Action::swap) cut(edit.begin + 1);
    if (action == EditPlan::Action::reset && edit.op == Operator::reset_every) {
      const Index period = period_of(edit);
      for (Index p = round_up(begin, period); p < end; p += period) cut(p);
    }
  }
  std::sort(cuts.begin(), cuts.end());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  return cuts;
}

}  // namespace

State::Memory memory_of(const Edit& edit) {
  const Index rows = is_stale(edit) ? most_tokens_back(edit) : 0;
  if (rows == 0) return {};
  return {rows, first_read(edit), edit.end};
}

State::Memory EditPlan::memory(int node) const {
  State::Memory memory;
  for (const auto& [edit, action] : of(node)) {
    const State::Memory one = memory_of(edit);
    if (one.rows == 0) continue;
    const bool first = memory.rows == 0;
    memory.from = first ? one.from : std::min(memory.from, one.from);
    memory.end = first ? one.end : memory.end < 0 || one.end < 0 ? -1 : std::max(memory.end, one.end);
    memory.rows = std::max(memory.rows, one.rows);
  }
  return memory;
}

std::vector<Field> EditPlan::fields(std::span<const Field> declared, int node) const {
  std::vector<Field> all(declared.begin(), declared.end());
  const Edit* window = nullptr;
  Index windows = 0;
  for (const auto& [edit, action] : of(node))
    if (edit.site == Site::window && edit.op == Operator::set) window = &edit, ++windows;
  const bool everywhere = windows == 1 && window->heads.empty() && window->values.empty() &&
                          window->begin == 0 && window->end < 0 && window->phase == Phase::always;
  if (!everywhere) return all;
  for (Field& field : all)
    if (field.kind == Field::Kind::log && field.window == 0) {
      field.window = static_cast<Index>(window->value);
      field.sinks = window->sinks;
    }
  return all;
}

bool Piece::has(EditPlan::Action action) const {
  return std::any_of(active.begin(), active.end(),
                     [&](const auto* entry) { return entry->action == action; });
}

std::vector<Piece> pieces_of(std::span<const EditPlan::Entry> entries, Index position, Index rows,
                             Origin origin) {
  if (entries.empty()) return {{position, rows, {}, {}}};
  const std::vector<Index> cuts = cuts_of(entries, position, position + rows);
  std::vector<Piece> pieces;
  for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
    Piece piece{cuts[i], cuts[i + 1] - cuts[i], {}, {}};
    for (const EditPlan::Entry& entry : entries) {
      if (!active_at(entry.edit, piece.position, origin)) continue;
      piece.active.push_back(&entry);
      if (entry.action == EditPlan::Action::inner) piece.inner.add(&entry.edit);
    }
    pieces.push_back(std::move(piece));
  }
  return pieces;
}

bool happens_at(const Edit& edit, Index position) {
  if (edit.op == Operator::reset_every) return position > 0 && position % period_of(edit) == 0;
  return position == first_position(edit);
}

bool touches(const Edit& edit, Index begin, Index end, Origin origin) {
  if (is_stale(edit)) return first_read(edit) < end && (edit.end < 0 || edit.end > begin);
  if (edit.phase == Phase::prefill && origin != Origin::given) return false;
  if (edit.phase == Phase::decode && origin != Origin::sampled) return false;
  return first_position(edit) < end && (edit.end < 0 || edit.end > begin);
}

// What.

namespace {

void copy_channels(const Edit& edit, const float* values, float* row, Index width) {
  const auto strength = static_cast<float>(edit.strength);
  const auto put = [&](Index c) {
    row[c] = edit.strength == 1 ? values[c] : row[c] * (1 - strength) + values[c] * strength;
  };
  if (edit.channels.empty())
    for (Index c = 0; c < width; ++c) put(c);
  else
    for (const Index c : edit.channels) put(c);
}

// The noise of a row: strength x value x the row's RMS x a normal draw per channel.
void add_noise(const Edit& edit, int node, Index position, float* row, Index width) {
  double squares = 0;
  for (Index c = 0; c < width; ++c) squares += static_cast<double>(row[c]) * row[c];
  const double size = edit.strength * edit.value * std::sqrt(squares / static_cast<double>(width));
  const auto put = [&](Index c) {
    const std::uint64_t stream = static_cast<std::uint64_t>(node) << 32 | static_cast<std::uint64_t>(c);
    row[c] += static_cast<float>(size * normal_draw(edit.seed, stream, static_cast<std::uint64_t>(position)));
  };
  if (edit.channels.empty())
    for (Index c = 0; c < width; ++c) put(c);
  else
    for (const Index c : edit.channels) put(c);
}

void scale_channels(const Edit& edit, float* row, Index width) {
  const auto factor = static_cast<float>(edit.op == Operator::zero ? 0.0 : edit.value);
  const auto put = [&](Index c) { row[c] = factor == 0 ? 0.0f : row[c] * factor; };
  if (edit.channels.empty())
    for (Index c = 0; c < width; ++c) put(c);
  else
    for (const Index c : edit.channels) put(c);
}

}  // namespace

void edit_output(const Piece& piece, int node, View<float> rows) {
  for (const EditPlan::Entry* entry : piece.active) {
    if (entry->action != EditPlan::Action::output) continue;
    const Edit& edit = entry->edit;
    std::vector<float> mean;
    if (edit.op == Operator::mean) mean.assign(edit.recorded->mean.begin(), edit.recorded->mean.end());
    for (Index r = 0; r < rows.rows; ++r) {
      const Index position = piece.position + r;
      float* row = rows.row(r);
      switch (edit.op) {
        case Operator::mean:
          copy_channels(edit, mean.data(), row, rows.cols);
          break;
        case Operator::resample:
          copy_channels(edit,
                        &edit.recorded->rows[static_cast<std::size_t>(drawn_row(edit, position) * rows.cols)],
                        row, rows.cols);
          break;
        case Operator::patch:
          copy_channels(edit, &edit.recorded->rows[static_cast<std::size_t>(position * rows.cols)], row,
                        rows.cols);
          break;
        case Operator::noise:
          add_noise(edit, node, position, row, rows.cols);
          break;
        default:
          scale_channels(edit, row, rows.cols);
      }
    }
  }
}

}  // namespace plait
