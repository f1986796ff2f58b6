#include "layers/reference/nats_l.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "layers/reference/recurrence.h"

namespace plait {

NatsLSettings read_nats_l(Config& config) {
  NatsLSettings s;
  s.width = config.width();
  s.num_heads = config.integer("num_heads", "heads of the delta rule and of the router");
  s.head_dim = config.integer("head_dim", "width of a delta head's query or key");
  s.value_head_dim = config.integer_or("value_head_dim", 2 * s.head_dim,
                                       "width of a delta head's value; by default 2 head_dim", 1);
  s.num_attention_heads =
      config.integer_or("num_attention_heads", 2 * s.num_heads,
                        "softmax heads, into which the same channels are cut; by default 2 num_heads", 1);
  s.block = config.integer_or("block", s.block, "tokens that are remembered one way or the other", 1);
  s.conv = config.integer_or("conv", s.conv, "kernel of the short convolution on q, k, v; 0 = none");
  s.negative_eigenvalues =
      config.boolean_or("negative_eigenvalues", s.negative_eigenvalues, "beta in (0, 2)");
  s.decay_for_non_gdn_blocks =
      config.boolean_or("decay_for_non_gdn_blocks", s.decay_for_non_gdn_blocks,
                        "blocks that attention remembers decay the state; false = they leave it as it is");
  s.qk_norm = config.boolean_or("qk_norm", s.qk_norm,
                                "root-mean-square norm of the attention heads' queries and keys");
  s.norm_eps = config.number_or(
      "norm_eps", s.norm_eps,
      "of all root-mean-square norms; the code's, the published 340M configuration has 1e-6", 0);
  if (s.num_attention_heads % s.num_heads != 0)
    config.refuse("num_attention_heads ", s.num_attention_heads, " is not a multiple of num_heads ",
                  s.num_heads);
  for (const auto& [name, size] : {std::pair{"head_dim", s.head_dim}, {"value_head_dim", s.value_head_dim}})
    if (size % s.group() != 0)
      config.refuse(name, " ", size, " cannot be cut into the ", s.group(),
                    " attention heads of a delta head");
  config.finish();
  return s;
}

std::vector<TensorSpec> nats_l_tensors(const NatsLSettings& s) {
  const Index keys = s.num_heads * s.head_dim, values = s.num_heads * s.value_head_dim;
  const char* key_rows = "[num_heads * head_dim, width]";
  const char* value_rows = "[num_heads * value_head_dim, width]";
  const char* attention_value = "[num_heads * value_head_dim / num_attention_heads]";
  std::vector<TensorSpec> specs = {
      {"q", {keys, s.width}, Init::normal, key_rows, true},
      {"k", {keys, s.width}, Init::normal, key_rows, true},
      {"v", {values, s.width}, Init::normal, value_rows, true},
      {"a", {s.num_heads, s.width}, Init::normal, "[num_heads, width]", true},
      {"beta", {s.num_heads, s.width}, Init::normal, "[num_heads, width]", true},
      {"a_log", {s.num_heads}, Init::decay_log, "[num_heads]"},
      {"dt_bias", {s.num_heads}, Init::time_step, "[num_heads]"},
      {"route", {2 * s.num_heads, s.width}, Init::normal, "[num_heads * 2, width]", true},
      {"mix",
       {2 * s.num_attention_heads, keys},
       Init::normal,
       "[num_attention_heads * 2, num_heads * head_dim]",
       true},
      {"norm", {s.attention_value()}, Init::around_one, attention_value},
      {"attention_norm", {s.attention_value()}, Init::around_one, attention_value},
      {"gate", {values, s.width}, Init::normal, value_rows, true},
      {"o", {s.width, values}, Init::normal, "[width, num_heads * value_head_dim]", true}};
  for (const char* name : {"q_norm", "k_norm"})
    if (s.qk_norm)
      specs.push_back(
          {name, {s.attention_key()}, Init::around_one, "[num_heads * head_dim / num_attention_heads]"});
  if (s.conv > 0) {
    specs.push_back({"q_conv", {keys, s.conv}, Init::taps, "[num_heads * head_dim, conv]"});
    specs.push_back({"k_conv", {keys, s.conv}, Init::taps, "[num_heads * head_dim, conv]"});
    specs.push_back({"v_conv", {values, s.conv}, Init::taps, "[num_heads * value_head_dim, conv]"});
  }
  return specs;
}

namespace {

using reference::Rows;

class NatsLTwin final : public Twin {
 public:
  NatsLTwin(const NatsLSettings& settings, const Parameters& parameters)
      : s_(settings), weights_(parameters) {}

  void run(std::span<const View<const double>> inputs, std::span<const Token>,
           View<double> output) const override {
    const View<const double> x = inputs[0];
    const Rows q = convolved("q", x), k = convolved("k", x), v = convolved("v", x);
    const std::vector<std::vector<bool>> attends = routes(x);
    Rows recurrent = recur(q, k, v, x, attends);
    Rows attention = attend(q, k, v, attends);
    reference::rms_normalise(recurrent, s_.attention_value(), s_.norm_eps, weights_["norm"]);
    reference::rms_normalise(attention, s_.attention_value(), s_.norm_eps, weights_["attention_norm"]);
    const Rows shares = weights_.project("mix", q.view()), z = weights_.project("gate", x);
    for (Index t = 0; t < x.rows; ++t)
      for (Index c = 0; c < recurrent.cols; ++c) {
        const Index head = c / s_.attention_value();
        const double first = reference::sigmoid(shares(t, 2 * head) - shares(t, 2 * head + 1));
        recurrent(t, c) =
            (first * recurrent(t, c) + (1 - first) * attention(t, c)) * reference::silu(z(t, c));
      }
    const Rows y = weights_.project("o", recurrent.view());
    for (Index t = 0; t < y.rows; ++t) std::copy_n(y.row(t), y.cols, output.row(t));
  }

 private:
  Rows convolved(const std::string& name, View<const double> x) const {
    Rows y = weights_.project(name, x);
    if (s_.conv > 0) y = weights_.convolve(name + "_conv", y);
    reference::map(y, reference::silu);
    return y;
  }

  // [complete block][head]: whether attention remembers it.
  std::vector<std::vector<bool>> routes(View<const double> x) const {
    std::vector<std::vector<bool>> attends;
    for (Index first = 0; first + s_.block <= x.rows; first += s_.block) {
      Rows mean(1, x.cols);
      for (Index t = first; t < first + s_.block; ++t)
        for (Index c = 0; c < x.cols; ++c) mean(0, c) += x(t, c) / static_cast<double>(s_.block);
      const Rows logits = weights_.project("route", mean.view());
      std::vector<bool>& block = attends.emplace_back();
      for (Index h = 0; h < s_.num_heads; ++h) block.push_back(logits(0, 2 * h) >= logits(0, 2 * h + 1));
    }
    return attends;
  }

  // The gated delta rule; the state goes back to the start of a block that attention remembers.
  Rows recur(Rows q, Rows k, const Rows& v, View<const double> x,
             const std::vector<std::vector<bool>>& attends) const {
    const Index key = s_.head_dim, value = s_.value_head_dim;
    reference::l2_normalise(q, key, 1e-6);
    reference::l2_normalise(k, key, 1e-6);
    const Rows a = weights_.project("a", x), b = weights_.project("beta", x);
    Rows o(x.rows, s_.num_heads * value);
    for (Index h = 0; h < s_.num_heads; ++h) {
      Rows state(key, value), start = state;
      double decay = 1;  // since the start of the block
      for (Index t = 0; t < x.rows; ++t) {
        if (t % s_.block == 0) start = state, decay = 1;
        const double factor = std::exp(-std::exp(weights_.at("a_log", h)) *
                                       reference::softplus(a(t, h) + weights_.at("dt_bias", h)));
        const double beta = (s_.negative_eigenvalues ? 2 : 1) * reference::sigmoid(b(t, h));
        decay *= factor;
        for (double& element : state.data) element *= factor;
        for (Index c = 0; c < value; ++c) {
          double old = 0, read = 0;
          for (Index d = 0; d < key; ++d) old += state(d, c) * k(t, h * key + d);
          for (Index d = 0; d < key; ++d) {
            state(d, c) += k(t, h * key + d) * beta * (v(t, h * value + c) - old);
            read += state(d, c) * q(t, h * key + d);
          }
          o(t, h * value + c) = read / std::sqrt(static_cast<double>(key));
        }
        if ((t + 1) % s_.block != 0 ||
            !attends[static_cast<std::size_t>(t / s_.block)][static_cast<std::size_t>(h)])
          continue;
        state = start;
        if (s_.decay_for_non_gdn_blocks)
          for (double& element : state.data) element *= decay;
      }
    }
    return o;
  }

  // Softmax attention over the row's own block and the complete ones that attention remembers.
  Rows attend(Rows q, Rows k, const Rows& v, const std::vector<std::vector<bool>>& attends) const {
    const Index key = s_.attention_key(), value = s_.attention_value();
    if (s_.qk_norm) {
      reference::rms_normalise(q, key, s_.norm_eps, weights_["q_norm"]);
      reference::rms_normalise(k, key, s_.norm_eps, weights_["k_norm"]);
    }
    Rows o(q.rows, v.cols);
    for (Index t = 0; t < q.rows; ++t)
      for (Index h = 0; h < s_.num_attention_heads; ++h) {
        const auto router = static_cast<std::size_t>(h / s_.group());
        std::vector<double> s;
        std::vector<Index> keys;
        for (Index j = 0; j <= t; ++j) {
          const Index block = j / s_.block;
          if (block != t / s_.block && !attends[static_cast<std::size_t>(block)][router]) continue;
          double dot = 0;
          for (Index d = 0; d < key; ++d) dot += q(t, h * key + d) * k(j, h * key + d);
          s.push_back(dot / std::sqrt(static_cast<double>(key)));
          keys.push_back(j);
        }
        const double maximum = *std::max_element(s.begin(), s.end());
        double mass = 0;
        for (double& logit : s) mass += logit = std::exp(logit - maximum);
        for (std::size_t i = 0; i < s.size(); ++i)
          for (Index c = h * value; c < (h + 1) * value; ++c) o(t, c) += s[i] / mass * v(keys[i], c);
      }
    return o;
  }

  NatsLSettings s_;
  reference::Weights weights_;
};

}  // namespace

std::shared_ptr<Twin> make_nats_l_twin(Config& config, const Parameters& parameters) {
  return std::make_shared<NatsLTwin>(read_nats_l(config), parameters);
}

}  // namespace plait
