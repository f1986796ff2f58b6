// The options of softmax_attention's stages score, normaliser and readout: settings, tensors and
// double-precision form, written from the equations of score.md, normaliser.md and readout.md in
// layers/attention. The fast forms are one file per option there.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "layers/reference/projection.h"
#include "runtime/base/tensor.h"
#include "runtime/graph/config.h"

namespace plait {

// -- score: the first element of the list makes a logit of q.k, the others change it.

struct ScaledDot {
  double scale = 1;
};
struct IntegralAttention {
  Index signals = 1;
  bool rope_per_signal = true;
  double scale = 1;  // 1 / sqrt(signals * head_dim)
};
// The three of arXiv 2509.07963 have no factor of their own: theirs stand on the channels of the queries.
struct MlrAttention {
  enum class Divide { none, levels, shared_levels };
  std::vector<Index> ranks;   // channels of every level, their sum is head_dim; 0 = no such level
  std::vector<Index> blocks;  // positions of a level's block
  Divide divide = Divide::none;
};
struct BilinearMlr {
  std::vector<Index> ranks;
  bool mup = false, divide_by_levels = false;
};
struct BilinearBtt {
  Index rank = 1;
  bool mup = false;
};
struct ScalableSoftmax {
  bool bias = false;
  double undo = 1;  // what takes 1 / sqrt(head_dim) back where s ln n replaces it
};
struct FocalAttention {
  enum class Mode { fixed, per_token, prefix_mean, full_mean };
  Mode mode = Mode::fixed;
  double t = 1, tau_min = 0, tau_max = 0;
};
struct ScaledSignedAveraging {
  double b = 1, n = 1;
};
struct SinSoftmax {
  double scale_after = 1;  // on the sine
};
struct RowStandardise {
  double eps = 0;
  double scale_after = 1;  // on the standardised logit
};
struct LogitSoftcap {
  double cap = 0;
};
struct Alibi {
  std::vector<double> slopes;  // [num_heads]
};
// adaptive_computation_pruning: keys whose weight cannot reach e^log_tol / max_length of the row's are left
// out.
struct KeyPruning {
  double log_tol = -10;
  Index max_length = 0;  // keys of a row at most
  double bound = 0;      // of |q.k| scale; 0 = from the gains of the q/k norm
};
struct ForgettingAttention {
  bool per_token = true;  // the gate reads the input; otherwise it is its bias
  std::optional<KeyPruning> pruning;
};
using ScoreOption = std::variant<ScaledDot, IntegralAttention, MlrAttention, BilinearMlr, BilinearBtt,
                                 ScalableSoftmax, FocalAttention, ScaledSignedAveraging, SinSoftmax,
                                 RowStandardise, LogitSoftcap, Alibi, ForgettingAttention>;

// -- normaliser: how the logits of a row become weights.

struct Softmax {
  enum class Sink { none, zero, learned };
  Sink sink = Sink::none;
};
struct Softermax {
  bool natural = false;  // logits times log2(e) first
};
struct CogAttention {};
struct SigmoidAttention {
  enum class Bias { constant, neg_log_n, neg_log_ni };
  enum class RowScale { none, inv_sqrt_n, inv_n };
  Bias bias_mode = Bias::constant;
  RowScale row_scale = RowScale::none;
  double bias = 0, t = 0;
};
struct PeriodicSoftmax {
  enum class Function { sin2_shifted, sin2, cos, sin, one_plus_sin10, siren };
  Function function = Function::sin2_shifted;
  double eps = 0;
};
struct TaylorSoftmax {
  Index order = 2;
};
struct StickBreaking {
  bool attend_current = false;
};
// The comparison functions of single-location regression.
struct LocationWeights {
  enum class Function { linear, erf, softplus };
  Function function = Function::linear;
  double shift = 0;
};
using NormaliserOption = std::variant<Softmax, Softermax, CogAttention, SigmoidAttention, PeriodicSoftmax,
                                      TaylorSoftmax, StickBreaking, LocationWeights>;

// -- readout: what is made of the weighted values.

struct MeanReadout {};
struct SelfAdjustSoftmax {
  enum class Variant { normalised, plain, shifted };
  Variant variant = Variant::normalised;
  double c_num = 0, c_den = 0;
};
struct AffineScaledAttention {
  enum class Gate { sigmoid, clipped_linear };
  Gate gate = Gate::sigmoid;
  bool bias = false;  // on W x
};
struct DifferentialAttention {
  Index version = 2;
  double lambda_init = 0, eps = 0;  // version 1
};
struct BayesSoftmax {};
struct ParallaxAttention {};
struct LaserAttention {};
using ReadoutOption = std::variant<MeanReadout, SelfAdjustSoftmax, AffineScaledAttention,
                                   DifferentialAttention, BayesSoftmax, ParallaxAttention, LaserAttention>;

// Heads that enter the gate and the output projection: readouts may combine query heads.
Index output_heads(const ReadoutOption& option, Index num_heads);

// Keys score, normaliser and readout, and one object per option that has settings, named like it. `scale` is
// the setting of that name, 0 = 1 / sqrt(head_dim). They do not call finish().
std::vector<ScoreOption> read_scores(Config& config, const ProjectionSettings& shape);
// The factor on q.k of the first option of a list; 1 where it stands on the queries' channels.
double scale_of(const ScoreOption& first);
NormaliserOption read_normaliser(Config& config);
ReadoutOption read_readout(Config& config, const std::vector<ScoreOption>& scores,
                           const NormaliserOption& normaliser);

// Null without pruning.
const KeyPruning* pruning_of(const std::vector<ScoreOption>& scores);
// Key j is left out of row i where c_i - c_j is below this.
double prune_threshold(const KeyPruning& pruning, const ProjectionSettings& shape, double scale,
                       const Parameters& parameters);

std::vector<TensorSpec> tensors_of(const ScoreOption& option, const ProjectionSettings& shape);
std::vector<TensorSpec> tensors_of(const NormaliserOption& option, const ProjectionSettings& shape);
std::vector<TensorSpec> tensors_of(const ReadoutOption& option, const ProjectionSettings& shape);

// -- Twins

// One query of one head, as the twins see it.
struct TwinRow {
  Index position = 0, head = 0;
  std::vector<Index> keys;             // visible positions, ascending
  std::vector<const double*> values;   // of those keys, [value_head_dim] each
  std::vector<const double*> vectors;  // the keys themselves, [head_dim] each
  const double* query = nullptr;       // [head_dim]
  double count() const { return static_cast<double>(keys.size()); }
};

// ln of the sum of e^s; s is not empty.
double log_sum_exp(const std::vector<double>& s);

class TwinStage {
 public:
  virtual ~TwinStage() = default;
  // What the option takes from the layer's input x [tokens, width], once: any layout, handed back row by row.
  virtual std::vector<double> prepare(View<const double> /*x*/) const { return {}; }
};

class ScoreTwin : public TwinStage {
 public:
  // s [row.keys.size()], in place
  virtual void apply(const TwinRow& row, const std::vector<double>& prepared,
                     std::vector<double>& s) const = 0;
};

class NormaliserTwin : public TwinStage {
 public:
  // logits [row.keys.size()] -> weights of the same keys
  virtual std::vector<double> weights(const TwinRow& row, const std::vector<double>& s) const = 0;
};

class ReadoutTwin : public TwinStage {
 public:
  // logits s and weights p -> out [value_head_dim], zero before
  virtual void read(const TwinRow& row, const std::vector<double>& prepared, const std::vector<double>& s,
                    const std::vector<double>& p, double* out, Index width) const = 0;
};

// What a readout makes of all heads of a token together.
class HeadMixTwin : public TwinStage {
 public:
  // attn [num_heads][width]; lse [num_heads], ln of the sum of e^s -> out [output_heads][width]
  virtual void mix(Index position, const std::vector<double>& prepared, const double* attn, const double* lse,
                   Index width, double* out) const = 0;
};

std::unique_ptr<ScoreTwin> make_twin(const ScoreOption& option, double scale, const ProjectionSettings& shape,
                                     const Parameters& parameters);
std::unique_ptr<NormaliserTwin> make_twin(const NormaliserOption& option, const Parameters& parameters);
std::unique_ptr<ReadoutTwin> make_twin(const ReadoutOption& option, const ProjectionSettings& shape,
                                       const Parameters& parameters);
// Null for a readout that leaves the heads alone.
std::unique_ptr<HeadMixTwin> make_mix_twin(const ReadoutOption& option, const ProjectionSettings& shape,
                                           const Parameters& parameters);

}  // namespace plait
