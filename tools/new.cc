// plait new: a model with random weights from a card.
#include <CLI/CLI.hpp>

#include "runtime/base/error.h"
#include "tools/program.h"
#include "tools/verbs.h"
#include "weights/initialise.h"

namespace plait {
namespace {

struct New {
  Common common;
  std::string card, destination, dtype = "f32";

  int run() const {
    const Json json = read_json(card);
    const std::uint64_t seed = common.seed.value_or(0);
    check_card(json, card);
    Progress progress(common, "writing");
    const std::string digest = write_random_model(json, destination, seed, parse_dtype(dtype),
                                                  [&](double fraction) { progress.update(fraction); });
    progress.clear();
    note(common, cat("wrote '", destination, "' (", dtype, ", seed ", seed, ")"));
    write_json(common, {{"model", destination}, {"dtype", dtype}, {"seed", seed}, {"sha256", digest}});
    return kDone;
  }
};

}  // namespace

void add_new(CLI::App& program, Action& chosen) {
  auto args = std::make_shared<New>();
  CLI::App* verb = program.add_subcommand("new", "Make a model with random weights from a card");
  verb->add_option("CARD", args->card, "The card, JSON")->required();
  verb->add_option("DST", args->destination, "The model file to write")->required();
  verb->add_option("--dtype", args->dtype, "Of matrices: f32 or bf16 (default: f32)")
      ->check(CLI::IsMember({"f32", "bf16", "q8", "q4"}));
  add_common(*verb, args->common, "not used");
  verb->callback([args, &chosen] { chosen = [args] { return args->run(); }; });
}

}  // namespace plait
