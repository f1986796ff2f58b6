// The verbs of the program, one .cc each. An add_ function declares the verb and its flags; parsing a command
// line that names the verb sets `chosen`, which does the work and returns the exit code.
#pragma once

#include <functional>

namespace CLI {
class App;
}

namespace plait {

using Action = std::function<int()>;

void add_convert(CLI::App& program, Action& chosen);
void add_new(CLI::App& program, Action& chosen);
void add_inspect(CLI::App& program, Action& chosen);
void add_kinds(CLI::App& program, Action& chosen);
void add_tokenize(CLI::App& program, Action& chosen);
void add_run(CLI::App& program, Action& chosen);
void add_score(CLI::App& program, Action& chosen);
void add_stream(CLI::App& program, Action& chosen);
void add_verify(CLI::App& program, Action& chosen);
void add_ablate(CLI::App& program, Action& chosen);
void add_report(CLI::App& program, Action& chosen);
void add_probe(CLI::App& program, Action& chosen);
void add_bench(CLI::App& program, Action& chosen);

}  // namespace plait
