// Averages over independent draws, their standard errors, and slopes: what the probes of theory share.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "runtime/base/view.h"
#include "tools/plot/effect.h"
#include "tools/program.h"

namespace plait::probe {

// The random numbers of one draw, one after another: a function of seed and draw alone.
class Source {
 public:
  Source(std::uint64_t seed, std::uint64_t draw) : seed_(seed), draw_(draw) {}
  double normal();
  double uniform();          // in [0, 1)
  Index below(Index count);  // uniform in [0, count)

 private:
  std::uint64_t seed_, draw_, counter_ = 0;
};

// Mean of draws and the mean's standard error, by Welford's update.
class Estimate {
 public:
  void add(double x);
  void merge(const Estimate& other);
  double mean() const { return mean_; }
  double error() const;  // infinite below two draws
  Index count() const { return count_; }

 private:
  Index count_ = 0;
  double mean_ = 0, squares_ = 0;
};

struct Sampling {
  Index draws = 0;
  std::uint64_t seed = 0;
  int threads = 1;
  std::function<void(double fraction)> progress = {};
};

// Draws of their own for every purpose; threads and seed (1 if none is given) as the command line says.
Sampling sampling_of(const Common& common, std::uint64_t purpose, Index draws);

// Averages of `quantities` numbers over the draws: body fills values [quantities] of one draw. Draws run in
// blocks, which are merged in order, so that the number of threads changes no bit.
using Body = std::function<void(Source& source, double* values)>;
std::vector<Estimate> average(const Sampling& sampling, Index quantities, const Body& body);

plot::Effect effect_of(const Estimate& estimate);  // with the interval of 95 %
std::string with_error(const Estimate& estimate);  // "0.4812 +- 0.0004", two digits of the error
Json json_of(const Estimate& estimate);            // {"mean", "stderr"}

// Least-squares slope of ln y over ln x.
double log_slope(const std::vector<double>& x, const std::vector<double>& y);

}  // namespace plait::probe
