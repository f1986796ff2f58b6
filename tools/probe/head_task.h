// Head specialisation (arXiv 2603.03993): single-location regression where the relevant token's direction is
// one of F spikes, read by H heads that share the values.
//
//   chi_fl = X_l.k*_f / sqrt D ~ N(0, 1), but N(sqrt nu, 1) for the spike and the location of the draw
//   logits of head h: s_hl = sum_f m_hf chi_fl + b_h, m_hf = k_h.k*_f / D
//   joint:   weights a_hl by one softmax over heads and tokens (readout bayes_softmax), summed over heads
//   average: mean over heads of each head's own weights (normaliser softmax or softmax_one)
//
// Loss: E |w - 1_e|^2, w [L] the weights of the tokens. The formula of Bayes-softmax is UNCONFIRMED: joint is
// the posterior derived for spikes of equal weight.
#pragma once

#include <vector>

#include "layers/reference/attention_options.h"
#include "tools/probe/monte_carlo.h"

namespace plait::probe {

struct HeadTask {
  Index tokens = 3;  // L
  Index spikes = 2;  // F
  double nu = 4;
};

enum class HeadReadout { joint, average };

struct Heads {
  HeadReadout readout = HeadReadout::joint;
  Softmax normaliser = {};      // of `average`
  Index count = 0;              // H
  std::vector<double> overlap;  // m [H, F]
  std::vector<double> bias;     // b [H], of `joint`
};

// A head per spike at the slope of the posterior, m = sqrt(nu) 1: with the joint readout the Bayes predictor.
Heads ideal_heads(const HeadTask& task, HeadReadout readout);

// Stochastic gradient descent on the loss from overlaps near zero, batches of 256 fresh draws, the rate
// falling to zero linearly.
Heads train_heads(const HeadTask& task, HeadReadout readout, const Softmax& normaliser, Index count,
                  Index steps, std::uint64_t seed, const std::function<void(double)>& progress = {});

Estimate head_loss(const HeadTask& task, const Heads& heads, const Sampling& sampling);

// What heads add to the output, share_h w_hl of the value z_l ~ N(0, 1), where the relevant token lies along
// their own spike, that of their largest overlap, and where it does not. Sums over heads.
struct Specialisation {
  Estimate signal;  // heads of the draw's spike: their weight on the relevant token
  Estimate noise;   // the others: their squared weights on the other tokens, the variance that these add
};
Specialisation specialisation(const HeadTask& task, const Heads& heads, const Sampling& sampling);

// Heads leave one after another, each time the one whose leaving costs least on these draws.
struct Pruned {
  std::vector<Index> order;    // heads in the order they leave; the last one stays
  std::vector<Estimate> loss;  // [H], with H, H - 1, .., 1 heads
};
Pruned prune_heads(const HeadTask& task, const Heads& heads, const Sampling& sampling);

}  // namespace plait::probe
