#include "runtime/run/wavefront.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <numeric>

#include "runtime/base/error.h"
#include "runtime/base/parallel.h"

namespace plait {
namespace {

constexpr Index kLogitRows = 64;       // rows of logits that make a good product
constexpr Index kTileRows = 8192;      // rows of a tile that more documents would not make faster
constexpr Index kLeastRows = 256;      // rows of a document below which variants are tiled instead
constexpr std::size_t kMostCuts = 64;  // positions where edits begin that are worth a tile of their own

std::size_t index(Index i) { return static_cast<std::size_t>(i); }

}  // namespace

// One pass over the nodes: some documents, a set of variants, a range of positions of each document.
class Wavefront::Tile {
 public:
  // What a document brings: rows to run, and where its variants stand.
  struct Part {
    std::size_t document;
    std::span<const Token> tokens;
    std::span<const Index> scored;  // offsets into `tokens`
    Index position;
    VariantStates* states;  // in: by this tile's variants; out: the same. Null = fresh, and nothing is kept
  };

  Tile(Wavefront& wavefront, std::span<const int> variants, std::span<const Part> parts)
      : all_(wavefront), model_(*wavefront.model_), variants_(variants), parts_(parts), workspace_(model_) {
    for (std::size_t p = 0; p < parts.size(); ++p) {
      std::vector<int> everyone(variants.size());
      std::iota(everyone.begin(), everyone.end(), 0);
      slots_.push_back({p, 0, std::move(everyone)});
    }
    spawns_.resize(index(model_.node_count()));
    begin_.resize(index(model_.node_count()));
    for (int n = 0; n < model_.node_count(); ++n) split(n);
    place_rows();
  }

  void run(const VariantSink& sink) {
    for (const Slot& slot : slots_) {
      const auto& own = parts_[slot.part].tokens;
      tokens_.insert(tokens_.end(), own.begin(), own.end());
    }
    std::size_t alive = parts_.size();
    for (int n = 0; n < model_.graph().output(); ++n) {
      alive = spawn(n, alive);
      run_node(n, alive);
      workspace_.close(n);
    }
    spawn(model_.graph().output(), alive);
    logits(sink);
    workspace_.close(model_.graph().output());
    for (const Part& part : parts_)
      if (part.states) part.states->position_ = part.position + static_cast<Index>(part.tokens.size());
  }

 private:
  // Variants that have been treated alike: they share rows.
  struct Slot {
    std::size_t part;
    Index first_row;
    std::vector<int> members;  // indices into variants_
  };
  struct Spawn {
    std::size_t from, to;  // slots
  };

  const EditPlan* plan_of(const Slot& slot) const {
    return all_.plans_[index(variants_[index(slot.members[0])])].get();
  }

  // What decides whether two variants of a slot part at node n: their edits there, as far as they touch these
  // rows, and whether their states of the node parted earlier.
  std::pair<int, int> key(const Part& part, int n, int member) const {
    const int variant = variants_[index(member)];
    int edits = all_.keys_[index(n)][index(variant)];
    if (edits != 0) {
      const auto entries = all_.plans_[index(variant)]->of(n);
      const Index end = part.position + static_cast<Index>(part.tokens.size());
      if (std::none_of(entries.begin(), entries.end(), [&](const EditPlan::Entry& entry) {
            return touches(entry.edit, part.position, end, Origin::given);
          }))
        edits = 0;
    }
    const bool fresh = !part.states || part.states->nodes_.empty() || model_.layer(n).fields().empty();
    return {edits, fresh ? 0 : part.states->nodes_[index(n)].class_of[index(member)]};
  }

  // Parts the slots at node n: the variants of the first key keep the slot, others get new ones. Remembers
  // how many slots there are, and for each which class of states it goes on from.
  void split(int n) {
    const std::size_t before = slots_.size();
    for (std::size_t s = 0; s < before; ++s) {
      const Part& part = parts_[slots_[s].part];
      std::map<std::pair<int, int>, std::size_t> slot_of;
      std::vector<int> kept;
      const std::vector<int> members = std::move(slots_[s].members);
      for (int member : members) {
        const auto k = key(part, n, member);
        const auto [found, is_new] = slot_of.try_emplace(k, slot_of.empty() ? s : slots_.size());
        if (is_new && found->second != s) {
          slots_.push_back({slots_[s].part, 0, {}});
          spawns_[index(n)].push_back({s, found->second});
        }
        if (found->second == s)
          kept.push_back(member);
        else
          slots_[found->second].members.push_back(member);
      }
      slots_[s].members = std::move(kept);
    }
    auto& begin = begin_[index(n)];
    for (const Slot& slot : slots_) begin.push_back({slot.members, plan_of(slot)});
  }

  void place_rows() {
    for (Slot& slot : slots_) {
      slot.first_row = rows_;
      rows_ += static_cast<Index>(parts_[slot.part].tokens.size());
    }
  }

  // Copies what is alive to the slots that are born at node n; returns how many slots there are.
  std::size_t spawn(int n, std::size_t alive) {
    for (const Spawn& s : spawns_[index(n)])
      workspace_.copy_rows(slots_[s.from].first_row, slots_[s.to].first_row,
                           static_cast<Index>(parts_[slots_[s.from].part].tokens.size()));
    return alive + spawns_[index(n)].size();
  }

  void run_node(int n, std::size_t alive) {
    const View<float> output = workspace_.open(n, rows_);
    const auto inputs = workspace_.inputs(n);
    const bool stateful = !model_.layer(n).fields().empty();
    std::vector<State> states;
    if (stateful) states = states_of(n, alive);
    std::vector<Slice> slices;
    for (std::size_t s = 0; s < alive; ++s) {
      const Part& part = parts_[slots_[s].part];
      // The slots that are there from the start, one for each part, hold the baseline.
      slices.push_back({begin_[index(n)][s].plan, stateful ? &states[s] : nullptr, part.position,
                        slots_[s].first_row, static_cast<Index>(part.tokens.size()), Origin::given,
                        all_.clean_baseline_ ? slots_[slots_[s].part].first_row : -1});
    }
    all_.walk_.run_node(n, slices, {inputs, output, tokens_});
    keep(n, alive, std::move(states));
  }

  std::vector<State> states_of(int n, std::size_t alive) const {
    std::vector<State> states;
    for (std::size_t s = 0; s < alive; ++s) {
      const Part& part = parts_[slots_[s].part];
      if (!part.states || part.states->nodes_.empty()) {
        states.emplace_back(model_.layer(n).fields());
      } else {
        const auto& node = part.states->nodes_[index(n)];
        states.push_back(node.states[index(node.class_of[index(begin_[index(n)][s].members[0])])]);
      }
    }
    return states;
  }

  // The states after this tile, by part: slots of node n are the classes.
  void keep(int n, std::size_t alive, std::vector<State> states) {
    for (std::size_t p = 0; p < parts_.size(); ++p) {
      if (!parts_[p].states) continue;
      auto& nodes = kept_[p];
      if (nodes.empty()) nodes.resize(index(model_.node_count()));
      auto& node = nodes[index(n)];
      node.class_of.assign(variants_.size(), 0);
      int classes = 0;
      for (std::size_t s = 0; s < alive; ++s) {
        if (slots_[s].part != p) continue;
        for (int member : begin_[index(n)][s].members) node.class_of[index(member)] = classes;
        if (!states.empty()) node.states.push_back(std::move(states[s]));
        ++classes;
      }
    }
    if (n + 1 < model_.graph().output()) return;
    for (auto& [p, nodes] : kept_) parts_[p].states->nodes_ = std::move(nodes);
  }

  // The output node on the scored rows, in blocks of whole positions.
  void logits(const VariantSink& sink) {
    std::vector<std::vector<std::size_t>> slots_of(parts_.size());
    for (std::size_t s = 0; s < slots_.size(); ++s) slots_of[slots_[s].part].push_back(s);
    for (std::size_t p = 0; p < parts_.size(); ++p) {
      const auto per_position = static_cast<Index>(slots_of[p].size());
      const auto scored = parts_[p].scored;
      const std::size_t step = index(std::max<Index>(1, kLogitRows / per_position));
      for (std::size_t first = 0; first < scored.size(); first += step)
        logit_block(p, slots_of[p], scored.subspan(first, std::min(step, scored.size() - first)), sink);
    }
  }

  void logit_block(std::size_t p, std::span<const std::size_t> slots, std::span<const Index> scored,
                   const VariantSink& sink) {
    std::vector<Slice> rows;
    for (const Index offset : scored)
      for (const std::size_t s : slots)
        rows.push_back({plan_of(slots_[s]), nullptr, parts_[p].position + offset,
                        slots_[s].first_row + offset, 1, Origin::given});
    Arena::Scope scope(scratch());
    const View<float> output = all_.walk_.gathered_output(rows, workspace_, tokens_, scope);
    std::vector<std::vector<int>> variants;
    for (const std::size_t s : slots) {
      auto& names = variants.emplace_back();
      for (int member : slots_[s].members) names.push_back(variants_[index(member)]);
    }
    const auto width = static_cast<Index>(slots.size());
    for (std::size_t i = 0; i < scored.size(); ++i)
      sink({parts_[p].document, parts_[p].position + scored[i], variants,
            output.slice_rows(static_cast<Index>(i) * width, width)});
  }

  struct AtNode {  // a slot as it is at one node
    std::vector<int> members;
    const EditPlan* plan;
  };

  Wavefront& all_;
  const Model& model_;
  std::span<const int> variants_;
  std::span<const Part> parts_;
  Workspace workspace_;
  std::vector<Slot> slots_;                                       // as they are after the last node
  std::vector<std::vector<Spawn>> spawns_;                        // by node
  std::vector<std::vector<AtNode>> begin_;                        // by node and slot
  std::map<std::size_t, std::vector<VariantStates::Node>> kept_;  // by part
  std::vector<Token> tokens_;
  Index rows_ = 0;
};

WavefrontCost& WavefrontCost::operator+=(const WavefrontCost& more) {
  rows += more.rows;
  tokens += more.tokens;
  tiles += more.tiles;
  return *this;
}

Wavefront::Wavefront(std::shared_ptr<const Model> model, std::vector<std::shared_ptr<const EditPlan>> plans,
                     WavefrontOptions options)
    : model_(std::move(model)),
      plans_(std::move(plans)),
      options_(options),
      keys_(index(model_->node_count())),
      walk_(*model_, options.compute),
      row_width_(Workspace(*model_).widest()) {
  check_causal(*model_);
  if (plans_.empty()) fail("a wavefront needs at least the baseline");
  clean_baseline_ = !plans_[0] || plans_[0]->edits().empty();
  for (int n = 0; n < model_->node_count(); ++n) {
    std::vector<std::span<const EditPlan::Entry>> known;
    for (const auto& plan : plans_) {
      const auto entries = plan ? plan->of(n) : std::span<const EditPlan::Entry>();
      const auto found = std::find_if(known.begin(), known.end(), [&](const auto& other) {
        return std::equal(other.begin(), other.end(), entries.begin(), entries.end());
      });
      keys_[index(n)].push_back(entries.empty() ? 0 : static_cast<int>(found - known.begin()) + 1);
      if (!entries.empty() && found == known.end()) known.push_back(entries);
    }
  }
  order_.resize(plans_.size() - 1);
  std::iota(order_.begin(), order_.end(), 1);
  std::stable_sort(order_.begin(), order_.end(), [&](int a, int b) {
    for (const auto& keys : keys_)
      if (keys[index(a)] != keys[index(b)]) return keys[index(a)] < keys[index(b)];
    return false;
  });
}

// Slots at the end of a walk with these variants.
Index Wavefront::classes_of(std::span<const int> variants) const {
  Index classes = 0;
  const auto same = [&](int a, int b) {
    return std::all_of(keys_.begin(), keys_.end(),
                       [&](const auto& keys) { return keys[index(a)] == keys[index(b)]; });
  };
  for (std::size_t i = 0; i < variants.size(); ++i)
    if (i == 0 || !same(variants[i - 1], variants[i])) ++classes;
  return classes;
}

std::size_t Wavefront::state_bytes(Index tokens, Kept kept) const {
  constexpr Index kMostPageRows = 64;
  std::size_t sum = 0, largest = 0;
  for (int n = 0; n < model_->node_count(); ++n) {
    std::size_t bytes = 0;
    Index remembered = 0;  // rows that stale reads keep
    for (const auto& plan : plans_)
      if (plan) remembered = std::max(remembered, std::min(tokens, plan->memory(n).rows));
    for (const Field& field : model_->layer(n).fields()) {
      Index rows = 1;
      if (field.kind == Field::Kind::open) rows = field.grid;
      if (field.grid > 0) rows *= 1 + ceil_div(remembered, field.grid);
      if (field.kind == Field::Kind::log) {
        const Index pages = 2 * std::min<Index>(kMostPageRows, round_up(field.window, 8));
        rows = field.window > 0 ? std::min(tokens, field.window + field.sinks + pages) : tokens;
      }
      bytes += index(field.width() * rows) * bytes_of(field.dtype);
    }
    sum += bytes;
    largest = std::max(largest, bytes);
  }
  return kept == Kept::states ? sum : largest;
}

// Tiles go over documents, then variants, then positions. Positions are cut first when memory is short,
// because their tiles repeat no work; each variant tile computes the baseline again.
Wavefront::Shape Wavefront::tile_shape(std::span<const VariantDocument> documents) const {
  Index longest = 1;
  for (const VariantDocument& document : documents)
    longest = std::max(longest, static_cast<Index>(document.tokens.size()));
  Index end = longest;
  for (const VariantDocument& document : documents)
    if (document.states)
      end = std::max(end, document.states->position() + static_cast<Index>(document.tokens.size()));
  const bool carried =
      std::any_of(documents.begin(), documents.end(), [](const auto& d) { return d.states; });
  const auto bytes = [&](Index variants, Index rows) {
    const Kept kept = carried || rows < longest ? Kept::states : Kept::nothing;
    const auto slots = static_cast<std::size_t>(
        variants >= static_cast<Index>(order_.size()) ? classes_of(order_) + 1 : variants + 1);
    return slots * (index(rows * row_width_) * sizeof(float) + state_bytes(end, kept) +
                    index(model_->card().vocab) * sizeof(float));
  };
  Shape shape{std::max<Index>(1, static_cast<Index>(order_.size())), longest, 1};
  while (bytes(shape.variants, shape.rows) > options_.memory) {
    if (shape.rows > kLeastRows)
      shape.rows = std::max(kLeastRows, round_up(shape.rows / 2, kLeastRows));
    else if (shape.variants > 1)
      shape = {ceil_div(shape.variants, 2), longest, 1};
    else
      fail("the memory budget of ", options_.memory,
           " bytes is too small for one variant beside the baseline: ", bytes(shape.variants, shape.rows),
           " are needed");
  }
  const std::size_t one = bytes(shape.variants, shape.rows);
  const Index enough = std::max<Index>(1, kTileRows / (shape.rows * (classes_of(order_) + 1)));
  shape.documents = std::clamp<Index>(static_cast<Index>(options_.memory / one), 1, enough);
  return shape;
}

// Where position tiles end: every `rows` rows, and where an edit begins, so that variants share what lies
// before.
std::vector<Index> Wavefront::position_cuts(std::span<const VariantDocument> documents, Index rows) const {
  std::vector<Index> begins;
  for (const auto& plan : plans_)
    for (const Edit& edit : plan ? plan->edits() : EditList())
      begins.push_back(edit.phase == Phase::after_prefix ? std::max(edit.begin, edit.prefix_tokens)
                                                         : edit.begin);
  std::sort(begins.begin(), begins.end());
  begins.erase(std::unique(begins.begin(), begins.end()), begins.end());
  if (begins.size() > kMostCuts) begins.clear();
  Index first = 0, end = 0;
  if (documents[0].states) first = documents[0].states->position();
  for (const VariantDocument& document : documents) {
    const Index from = document.states ? document.states->position() : 0;
    if (from != first) begins.clear();  // documents that stand at different places are cut by rows alone
    end = std::max(end, static_cast<Index>(document.tokens.size()));
  }
  std::vector<Index> cuts = {0};
  for (Index begin : begins)
    if (begin - first > 0 && begin - first < end) {
      while (begin - first - cuts.back() > rows) cuts.push_back(cuts.back() + rows);
      if (begin - first > cuts.back()) cuts.push_back(begin - first);
    }
  while (cuts.back() < end) cuts.push_back(std::min(end, cuts.back() + rows));
  return cuts;
}

void Wavefront::run(std::span<const VariantDocument> documents, const VariantSink& sink) {
  for (const VariantDocument& document : documents) check_tokens(*model_, document.tokens);
  const FloatEnvironment environment;
  const Shape shape = tile_shape(documents);
  for (std::size_t d = 0; d < documents.size(); d += index(shape.documents))
    run_documents(documents.subspan(d, std::min(index(shape.documents), documents.size() - d)), d, shape,
                  sink);
  for (const VariantDocument& document : documents)
    cost_.tokens += static_cast<Index>(document.tokens.size());
  cost_.rows += walk_.take_multiplications() / walk_.row_cost();
}

void Wavefront::run_documents(std::span<const VariantDocument> documents, std::size_t first,
                              const Shape& shape, const VariantSink& sink) {
  const std::vector<Index> cuts = position_cuts(documents, shape.rows);
  std::vector<VariantStates> after(documents.size());
  for (std::size_t v = 0; v == 0 || v < order_.size(); v += index(shape.variants)) {
    std::vector<int> variants = {0};
    variants.insert(variants.end(), order_.begin() + static_cast<std::ptrdiff_t>(v),
                    order_.begin() + std::min<std::ptrdiff_t>(static_cast<std::ptrdiff_t>(v) + shape.variants,
                                                              static_cast<std::ptrdiff_t>(order_.size())));
    std::vector<VariantStates> states;
    for (const VariantDocument& document : documents) states.push_back(chosen(document.states, variants));
    for (std::size_t c = 0; c + 1 < cuts.size(); ++c) {
      std::vector<Tile::Part> parts;
      std::vector<std::vector<Index>> scored(documents.size());
      for (std::size_t d = 0; d < documents.size(); ++d) {
        const auto length = static_cast<Index>(documents[d].tokens.size());
        const Index begin = std::min(cuts[c], length), end = std::min(cuts[c + 1], length);
        if (begin == end) continue;
        for (const Index offset : documents[d].scored)
          if (offset >= begin && offset < end) scored[d].push_back(offset - begin);
        const bool keeps = documents[d].states || cuts.size() > 2;
        parts.push_back({first + d, documents[d].tokens.subspan(index(begin), index(end - begin)), scored[d],
                         states[d].position_, keeps ? &states[d] : nullptr});
      }
      Tile(*this, variants, parts).run(sink);
      ++cost_.tiles;
    }
    for (std::size_t d = 0; d < documents.size(); ++d)
      if (documents[d].states) merge(std::move(states[d]), variants, after[d]);
  }
  for (std::size_t d = 0; d < documents.size(); ++d)
    if (documents[d].states) *documents[d].states = std::move(after[d]);
}

VariantStates Wavefront::chosen(const VariantStates* states, std::span<const int> variants) {
  VariantStates part;
  if (!states) return part;
  part.position_ = states->position_;
  for (const VariantStates::Node& node : states->nodes_) {
    VariantStates::Node& own = part.nodes_.emplace_back();
    own.states = node.states;  // shared until written
    if (!node.class_of.empty())
      for (int variant : variants) own.class_of.push_back(node.class_of[index(variant)]);
  }
  return part;
}

void Wavefront::merge(VariantStates part, std::span<const int> variants, VariantStates& whole) const {
  whole.position_ = part.position_;
  whole.nodes_.resize(part.nodes_.size());
  for (std::size_t n = 0; n < part.nodes_.size(); ++n) {
    auto& to = whole.nodes_[n];
    auto& from = part.nodes_[n];
    if (from.class_of.empty()) continue;
    to.class_of.resize(plans_.size());
    const int offset = static_cast<int>(to.states.size());
    for (std::size_t i = 0; i < variants.size(); ++i)
      to.class_of[index(variants[i])] = offset + from.class_of[i];
    std::move(from.states.begin(), from.states.end(), std::back_inserter(to.states));
  }
}

Sequence Wavefront::sequence(const VariantStates& states, int variant) const {
  Sequence sequence(*model_);
  sequence.position = states.position_;
  sequence.plan = plans_[index(variant)];
  for (std::size_t n = 0; n < states.nodes_.size(); ++n) {
    const auto& node = states.nodes_[n];
    if (!node.states.empty()) sequence.states[n] = node.states[index(node.class_of[index(variant)])];
  }
  return sequence;
}

}  // namespace plait
