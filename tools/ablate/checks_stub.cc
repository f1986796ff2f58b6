#include "tools/ablate/checks.h"
namespace plait::ablate {
std::vector<Check> run_checks(const Subject&, std::span<const EditList>, const References&,
                              const CheckProgress&) {
  return {};
}
bool passed(std::span<const Check>) { return true; }
void write_checks(const std::string&, std::span<const Check>) {}
}  // namespace plait::ablate
