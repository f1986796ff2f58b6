// Attention rows read as Boltzmann distributions over the keys: P_j = exp(-E_j / kT) / Z, E_j = -q.k_j,
// kT = 1 / scale. Free energy, mean energy, entropy and heat capacity per head, and over temperatures.
// Source: bioRxiv 2026.06.08.730844; the formulas are those of statistical mechanics.
#pragma once

#include <span>
#include <vector>

#include "tools/probe/attention_reading.h"
#include "tools/probe/probe.h"

namespace plait::probe {

struct Thermodynamics {
  double free_energy = 0;    // F = -kT ln Z
  double energy = 0;         // U = sum P E
  double entropy = 0;        // S = -sum P ln P, nats
  double heat_capacity = 0;  // Var(E) / (kT)^2
};

// Of levels E_j = -kt * logits[j] at temperature `relative` * kt. -infinity is a level out of reach.
Thermodynamics thermodynamics(std::span<const double> logits, double kt, double relative = 1);

class AttentionThermodynamics final : public Probe {
 public:
  void add_flags(CLI::App& verb) override;
  Findings run(const Common& common) const override;

 private:
  ReadingFlags flags_;
};

}  // namespace plait::probe
