// Two sets of embeddings that belong together: how well each finds its partner in the pool of the others, and
// how their score fits a measured value. Source: bioRxiv 2026.06.08.730844 (a dual encoder of drugs and
// targets); here the embeddings are given.
#pragma once

#include <string>
#include <vector>

#include "runtime/base/view.h"
#include "tools/probe/probe.h"

namespace plait::probe {

// Rows of length 1, in double precision.
struct UnitRows {
  Index count = 0, width = 0;
  std::vector<double> values;  // [count, width]
};
// Rows over their norms. Throws Error naming `origin` and the row that is zero or not finite.
UnitRows unit_rows(Index count, Index width, std::vector<double> values, const std::string& origin);

// What a softmax of the scores cos / temperature over the whole pool gives the partners of each query.
struct Retrieval {
  std::vector<Index> rank;       // of the best partner, from 1; candidates of the same score come before it
  double loss = 0;               // mean of -ln of the partners' share (InfoNCE), nats
  double recall(Index k) const;  // share of queries with a partner among the first k
  double median_rank() const;
};
// partners [queries.count]: rows of the pool, none for a query that is left out; somebody has one
Retrieval retrieve(const UnitRows& queries, const UnitRows& pool,
                   const std::vector<std::vector<Index>>& partners, double temperature, int threads);

// Least squares of value = alpha score + beta.
struct Calibration {
  double alpha = 0, beta = 0;
  double alpha_error = 0, beta_error = 0;  // standard errors
  double correlation = 0;
  double error = 0;           // root mean square of the residuals
  double left_out_error = 0;  // each value by the line of all others; infinite if those have none
};
// At least three values, scores that differ.
Calibration calibrate(const std::vector<double>& scores, const std::vector<double>& values);

class PooledRetrieval final : public Probe {
 public:
  void add_flags(CLI::App& verb) override;
  Findings run(const Common& common) const override;

 private:
  // partners [a.count]: rows of b
  void add_retrieval(const UnitRows& a, const UnitRows& b, const std::vector<Index>& partners,
                     const Common& common, Findings& found) const;
  void add_calibration(const UnitRows& a, const UnitRows& b, const std::vector<Index>& partners,
                       Findings& found) const;

  std::string a_, b_, partners_, measured_;
  double temperature_ = 0.07;
  std::vector<Index> top_ = {1, 10};
};

}  // namespace plait::probe
