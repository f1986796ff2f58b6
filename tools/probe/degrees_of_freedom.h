// How many random features a head needs: the degrees of freedom of its kernel (arXiv 2507.03340).
//
//   K(a, b) = exp(scale a.b), G the Gram matrix of J vectors from a head's queries and keys
//   DoF = tr G (G + lambda I)^-1; a layer's is the largest of its heads'
//   M_s = round(C DoF_s / mean of DoF over layers), C features per layer on average
//
// The paper's text has no 1 / J in front of G, its integral operator would have: UNCONFIRMED, `gram_scale`.
#pragma once

#include <string>
#include <vector>

#include "tools/probe/attention_reading.h"
#include "tools/probe/monte_carlo.h"
#include "tools/probe/probe.h"

namespace plait::probe {

// Eigenvalues of the Gram matrix of vectors [count, width], ascending. Throws Error where exp overflows.
std::vector<double> gram_eigenvalues(const std::vector<double>& vectors, Index count, double scale);
double degrees_of_freedom(const std::vector<double>& eigenvalues, double lambda);
// Features of each layer, at least 1.
std::vector<Index> feature_counts(const std::vector<double>& dof, double average);

class DegreesOfFreedom final : public Probe {
 public:
  void add_flags(CLI::App& verb) override;
  Findings run(const Common& common) const override;

 private:
  struct Spectrum {  // of one head
    std::string layer;
    Index head = 0;
    std::vector<double> eigenvalues;
  };
  std::vector<Spectrum> of_model(const Common& common, Json& json) const;
  std::vector<Spectrum> of_gaussian(const Common& common) const;
  static std::vector<double> shown_ridges(const std::vector<Spectrum>& spectra);

  ReadingFlags reading_;
  Index samples_ = 256, dim_ = 16;
  double deviation_ = 0.5, lambda_ = 0.0625, average_ = 64;
  std::string gram_scale_ = "one";
};

}  // namespace plait::probe
