// Risks of softmax and other weight functions where one token of L carries the answer (location_task.h), and
// of many heads where the answer lies along one of several directions (head_task.h).
#pragma once

#include <string>
#include <vector>

#include "tools/probe/location_task.h"
#include "tools/probe/probe.h"

namespace plait::probe {

class SingleLocationRegression final : public Probe {
 public:
  void add_flags(CLI::App& verb) override;
  Findings run(const Common& common) const override;

 private:
  LocationTask chosen_task() const;
  void write_data(const Common& common, Findings& found) const;
  void add_risks(const Common& common, Findings& found) const;
  void add_heads(const Common& common, Findings& found) const;

  LocationTask task_;
  std::string law_ = "spiked", out_;
  std::vector<double> nu_ = {1, 2, 5, 10, 20};
  Index draws_ = 200000, fit_draws_ = 20000, width_ = 0, layer_draws_ = 2000;
  Index spikes_ = 0, heads_ = 4, steps_ = 600;
};

}  // namespace plait::probe
