// An intervention is data on a segment: site x scope x operator x phase (architecture section 5).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/view.h"
#include "runtime/graph/config.h"

namespace plait {

// Inner sites, one vocabulary for all families. `output` is the node's own output (every node has it).
enum class Site {
  output,
  decay,
  write,
  erase,
  state,
  read,
  conv,
  qk_norm,
  gate,
  head,
  score,
  position,
  window,
  sinks,
  skip_d,
  norm,
  residual
};

// Node level (site output; residual: the stream a block leaves): zero, scale, skip, mean, resample, noise,
// patch, zero_rescale. Inner sites: as the layer's page lists them.
enum class Operator {
  zero,      // output, head: contribution := 0; write: = no_write; skip_d: D := 0; state: the read S_t := 0
  scale,     // output, head: times value
  skip,      // output: the rows are not computed, the state gets a hole
  one,       // decay: g := 0 (never forgets); gate: factor := 1
  constant,  // decay: g := value (or per head); write: strength := value (or per head)
  off,       // erase: nothing is erased; qk_norm: no normalisation
  identity,  // conv: bypass
  current_tap,  // conv: only the weight on the current token
  freeze,    // state: no decay, no erase, no write; norm: the rows' scales := values, or those of a reference
  no_write,  // state: decay continues, nothing is erased or written
  no_read,   // state: o := 0, the skip term stays
  delete_write,  // state: as no_write (for one token's range)
  reset,         // state: before the first row of the range
  reset_every,   // state: at every multiple of value
  knockout,      // score: keys in [key_begin, key_end) get -infinity; score/zero: their weights := 0
  set,           // window: latest value keys, first sinks keys
  mask,          // sinks: keys before value are hidden
  none,          // position: no rotary
  shift,         // position: rotary positions + value
  mean,          // output, residual: := the reference's mean over its rows; head, gate: := values
  resample,  // output, residual: := a row of the reference, drawn by (seed, position); head: the same of its
             // rows, or := values, one row of all heads per token of the range
  noise,     // output, residual: + value x the row's RMS x a normal draw by (seed, node, position, channel);
             // head, state: + value x its RMS x normal numbers by (seed, node, head, position)
  patch,     // output, residual: := the reference's row at the same position
  zero_rescale,  // output of one of several branches: := 0, the others scaled to keep the reference's mean
                 // norm
  swap,          // state: before the first row of the range := the reference's state at that position
  rank,          // state: its best approximation of rank value
  cast,          // state: rounded to `to`
  stale,         // state: rows read what they would have read value tokens earlier
};

// Whether a node whose contribution is zero runs all the same, so that its state advances
// (ablation-and-streaming 7).
enum class Shadow { on, off };

// Who wrote a token: a text (phase prefill) or the sampler (phase decode).
enum class Origin { given, sampled };

struct Recorded;  // runtime/run/recording.h

enum class Phase { always, prefill, decode, after_prefix };
// How often an operator on the state itself is applied: after every token, or when a chunk is folded.
enum class Every { unset, token, chunk };
enum class Storage { f32, fp16, bf16, int8 };  // int8: one scale per head, max|S| / 127

// As written in a spec file. JSON: {"where": "blocks.3.mixer/decay", "operator": "one", "heads": [0, 2],
// "channels": [..], "tokens": [begin, end], "value": 1.0, "values": [...], "phase": "always",
// "prefix_tokens": 0, "strength": 1, "reference": NAME, "seed": 0, "shadow": "on", "every": "chunk",
// "to": "bf16", "activation": "drop", "norm_match": true}
struct Edit {
  std::string node;  // a node or a dotted group: "blocks.3.mixer", "blocks.3"
  Site site = Site::output;
  Operator op = Operator::zero;
  double strength = 1;  // 0 drops the edit
  double value = 0;
  // Per head or per channel, where the operator takes it; empty = `value` for all. norm/freeze: one per token
  // of the range; head/resample: [tokens, heads * channels]; see takes_inner_mean, takes_inner_rows.
  std::vector<double> values;
  std::vector<Index> heads;          // empty = all
  Index begin = 0, end = -1;         // token range in positions; end -1 = no end
  Index key_begin = 0, key_end = 0;  // score/knockout
  Index sinks = 0;                   // window/set
  bool reset_conv = false;           // state/reset: also hide the convolution's rows
  Phase phase = Phase::always;
  Index prefix_tokens = 0;
  std::vector<Index> channels;  // columns of a node's output; empty = all
  std::string reference;       // name of the recording that mean, resample, patch, zero_rescale and swap read
  std::uint64_t seed = 0;      // resample, noise
  Shadow shadow = Shadow::on;  // output/zero
  Every every = Every::unset;  // state/{rank, noise, cast}
  Storage to = Storage::f32;   // state/cast
  bool drop_activation = false;  // conv/identity: the activation behind it as well
  bool norm_match = false;       // erase/off: what is written keeps the length it had with the erasure
  // What `reference` holds of the node this copy of the edit acts on. Set by EditPlan; not part of the spec.
  std::shared_ptr<const Recorded> recorded;
  bool operator==(const Edit&) const = default;
};

using EditList = std::vector<Edit>;

const char* name_of(Site site);
const char* name_of(Operator op);
const char* name_of(Phase phase);
const char* name_of(Every every);
const char* name_of(Storage storage);
Edit parse_edit(const Json& json);  // throws Error naming the key
Json to_json(const Edit& edit);
EditList parse_edits(const Json& json);  // a list
std::string digest(const EditList& edits);

// An inner place of a layer an edit may name, with the operators it understands.
struct SiteSpec {
  Site site;
  std::vector<Operator> operators;
  Index heads = 0;              // a scope of heads names these; 0 = the site has none
  Index channels = 0;           // of one head, where values may be given by channel
  Every finest = Every::token;  // what state/{rank, noise, cast} may be applied at
};

// Throws Error when the edit lacks what its operator needs at this site, or names heads or values the site
// does not have.
void check(const Edit& edit, const SiteSpec& spec);

// The edits of one node that cover every row of one segment, in the spec's order. What layers see.
class Edits {
 public:
  void add(const Edit* edit) { edits_.push_back(edit); }
  bool empty() const { return edits_.empty(); }
  // The last edit of this site and operator that covers head h; null if none.
  const Edit* find(Site site, Operator op, Index head) const;
  const Edit* find(Site site, Operator op) const;  // any scope of heads
  bool has(Site site) const;
  std::span<const Edit* const> all() const { return edits_; }
  bool operator==(const Edits&) const = default;
  // A number of the layer's own, so that two layers under one edit see different noise.
  std::uint64_t layer() const { return layer_; }
  void set_layer(std::uint64_t layer) { layer_ = layer; }

 private:
  std::vector<const Edit*> edits_;
  std::uint64_t layer_ = 0;
};

// Whether EditPlan gives the edit the mean of its site over its reference, by channel, as `values`:
// decay/constant, write/constant, gate/mean and head/mean with a reference and no values.
bool takes_inner_mean(const Edit& edit);
// Whether the edit, without values, takes rows of its site from its reference: head/resample draws them,
// norm/freeze takes the scale of the same position.
bool takes_inner_rows(const Edit& edit);
// The reference of a norm/freeze that takes its scales from the run without edits on the same tokens. That
// run stands beside it in a wavefront; elsewhere it is a recording of this name.
inline constexpr const char* kClean = "clean";
bool covers(const Edit& edit, Index head);
// edit.values[head] or edit.value
double value_of(const Edit& edit, Index head);
// state/stale: how many tokens earlier the state is that a head's rows read; of any head, at most.
Index tokens_back(const Edit& edit, Index head);
Index most_tokens_back(const Edit& edit);

}  // namespace plait
