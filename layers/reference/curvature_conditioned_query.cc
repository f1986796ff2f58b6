#include "layers/reference/curvature_conditioned_query.h"

#include <algorithm>
#include <cmath>

namespace plait {

std::optional<QuerySettings> read_query(Config& config, Index outputs, bool channelwise) {
  Config* query = config.object("query", "what becomes of the queries before they read the state");
  if (!query) return std::nullopt;
  QuerySettings s;
  query->choice("form", {"curvature_conditioned_query"},
                "q - lambda Sigma q, Sigma of the keys so far; no parity claimed: all below is UNCONFIRMED");
  s.learned = query->choice("lambda_source", {"setting", "tensor"},
                            "of the card, or learned: tensor query_lambda; UNCONFIRMED") == 1;
  s.lambda = query->numbers_or("lambda", {0},
                               "one number, or one per output head; 0 = the plain query; UNCONFIRMED");
  s.center = query->boolean_or("center", !channelwise, "Sigma without the keys' mean; UNCONFIRMED");
  s.normalise =
      query->boolean_or("normalise", !channelwise, "Sigma over the decayed number of keys; UNCONFIRMED");
  if (channelwise) {
    s.channel_decay = static_cast<QuerySettings::ChannelDecay>(
        query->choice("channel_decay", {"symmetric", "both", "left"},
                      "of C's rows and columns: half of each, all of each, rows alone; UNCONFIRMED"));
    if (s.center || s.normalise)
      config.refuse("query.", s.center ? "center" : "normalise",
                    " counts the keys, but with a decay per channel there is no one number of them");
  }
  if (s.learned && s.lambda != std::vector<double>{0})
    config.refuse("query.lambda means nothing while query.lambda_source is tensor");
  if (s.learned) {
    s.lambda.clear();
  } else if (s.lambda.size() == 1) {
    s.lambda.assign(static_cast<std::size_t>(outputs), s.lambda[0]);
  } else if (static_cast<Index>(s.lambda.size()) != outputs) {
    config.refuse("query.lambda has ", s.lambda.size(), " numbers, but there are ", outputs, " output heads");
  }
  return s;
}

void add_query_tensors(const std::optional<QuerySettings>& settings, Index outputs,
                       std::vector<TensorSpec>& specs) {
  if (settings && settings->learned)
    specs.push_back({"query_lambda", {outputs}, Init::small, "[output heads]"});
}

std::vector<double> query_lambdas(const std::optional<QuerySettings>& settings,
                                  const Parameters& parameters) {
  if (!settings) return {};
  return settings->learned ? to_double(parameters.tensor("query_lambda")) : settings->lambda;
}

namespace reference {
namespace {

// What a state head knows of its keys: C = sum k k', r = sum k, n = their number, all decayed.
struct Curvature {
  explicit Curvature(Index key) : c(key, key), r(static_cast<std::size_t>(key)) {}

  void absorb(const QuerySettings& s, const double* g, Index channels, const double* k) {
    using ChannelDecay = QuerySettings::ChannelDecay;
    for (Index a = 0; a < c.rows; ++a)
      for (Index b = 0; b < c.cols; ++b) {
        double log_decay = channels == 1 ? g[0] : 0;
        if (channels > 1 && s.channel_decay == ChannelDecay::symmetric) log_decay = (g[a] + g[b]) / 2;
        if (channels > 1 && s.channel_decay == ChannelDecay::both) log_decay = g[a] + g[b];
        if (channels > 1 && s.channel_decay == ChannelDecay::left) log_decay = g[a];
        c(a, b) = std::exp(log_decay) * c(a, b) + k[a] * k[b];
      }
    const double decay = channels == 1 ? std::exp(g[0]) : 1;
    for (Index a = 0; a < c.rows; ++a) {
      double& sum = r[static_cast<std::size_t>(a)];
      sum = decay * sum + k[a];
    }
    n = decay * n + 1;
  }
  // q - lambda Sigma q
  void condition(const QuerySettings& s, double lambda, const double* q, double* y) const {
    double along = 0;
    for (Index b = 0; b < c.cols; ++b) along += r[static_cast<std::size_t>(b)] * q[b];
    for (Index a = 0; a < c.rows; ++a) {
      double sigma = 0;
      for (Index b = 0; b < c.cols; ++b) sigma += c(a, b) * q[b];
      if (s.center) sigma -= r[static_cast<std::size_t>(a)] * along / n;
      if (s.normalise) sigma /= n;
      y[a] = q[a] - lambda * sigma;
    }
  }

  Rows c;
  std::vector<double> r;
  double n = 0;
};

}  // namespace

void condition_query(const QuerySettings& settings, const std::vector<double>& lambda, Heads& heads, Rows& q,
                     const Rows& k, const Rows* g) {
  const Index outputs = std::max(heads.queries, heads.states), key = heads.key;
  Rows conditioned(q.rows, outputs * key);
  for (Index o = 0; o < outputs; ++o) {
    const Index state = o / (outputs / heads.states), channels = g ? g->cols / heads.states : 0;
    Curvature curvature(key);
    for (Index t = 0; t < q.rows; ++t) {
      curvature.absorb(settings, g ? g->row(t) + state * channels : nullptr, channels,
                       k.row(t) + state / (heads.states / heads.keys) * key);
      curvature.condition(settings, lambda[static_cast<std::size_t>(o)],
                          q.row(t) + o / (outputs / heads.queries) * key, conditioned.row(t) + o * key);
    }
  }
  heads.queries = outputs;
  q = std::move(conditioned);
}

}  // namespace reference
}  // namespace plait
