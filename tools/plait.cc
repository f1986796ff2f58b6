// The program: picks the verb, turns every outcome into an exit code and at most one line on standard error.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <csignal>
#include <cstdio>
#include <new>
#include <string>

#include "runtime/base/error.h"
#include "runtime/text/utf8.h"
#include "tools/program.h"
#include "tools/verbs.h"
#include "weights/temporary_file.h"

namespace plait {
namespace {

struct Verb {
  const char* name;
  void (*add)(CLI::App&, Action&);
};

constexpr std::array<Verb, 13> kVerbs = {{{"convert", add_convert},
                                          {"new", add_new},
                                          {"inspect", add_inspect},
                                          {"kinds", add_kinds},
                                          {"tokenize", add_tokenize},
                                          {"run", add_run},
                                          {"score", add_score},
                                          {"stream", add_stream},
                                          {"verify", add_verify},
                                          {"ablate", add_ablate},
                                          {"report", add_report},
                                          {"probe", add_probe},
                                          {"bench", add_bench}}};

extern "C" void interrupted(int) {
  remove_temporary_files();
  _exit(kInterrupted);
}

void install_signals() {
  struct sigaction action = {};
  action.sa_handler = interrupted;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  action.sa_handler = SIG_IGN;  // writing to a closed pipe fails and is seen by print()
  sigaction(SIGPIPE, &action, nullptr);
  sigaction(SIGXFSZ, &action, nullptr);  // so does writing past the file size limit
}

// Always one line, whatever the message holds.
int report(std::string message, int code) {
  while (!message.empty() && (message.back() == '.' || message.back() == '\n')) message.pop_back();
  for (char& c : message)
    if (static_cast<unsigned char>(c) < ' ') c = ' ';
  std::fprintf(stderr, "plait: error: %s.\n", message.c_str());
  return code;
}

std::string verb_names() {
  std::string names;
  for (const Verb& verb : kVerbs) names += std::string(names.empty() ? "" : ", ") + verb.name;
  return names;
}

bool is_verb(const std::string& name) {
  for (const Verb& verb : kVerbs)
    if (name == verb.name) return true;
  return false;
}

int parse_and_run(int argc, char** argv) {
  CLI::App program("plait: a runtime for hybrid sequence models: run, ablate, stream.", "plait");
  program.set_version_flag("--version", "plait " PLAIT_VERSION);
  program.require_subcommand(0, 1);
  Action chosen;
  for (const Verb& verb : kVerbs) verb.add(program, chosen);

  if (argc < 2) throw UsageError(cat("no verb is given; the verbs are ", verb_names(), "; see plait --help"));
  const std::string first = argv[1];
  if (!first.starts_with("-") && !is_verb(first))
    throw UsageError(cat("there is no verb '", to_valid_utf8(first), "'; the verbs are ", verb_names()));
  try {
    program.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    print(program.help());
    return kDone;
  } catch (const CLI::CallForAllHelp&) {
    print(program.help("", CLI::AppFormatMode::All));
    return kDone;
  } catch (const CLI::CallForVersion& version) {
    print(std::string(version.what()) + "\n");
    return kDone;
  } catch (const CLI::ParseError& error) {
    throw UsageError(error.what());
  }
  if (!chosen) throw UsageError(cat("no verb is given; the verbs are ", verb_names(), "; see plait --help"));
  return chosen();
}

int guarded(int argc, char** argv) {
  try {
    const int code = parse_and_run(argc, argv);
    flush_output();
    return code;
  } catch (const ReaderGone&) {
    return kReaderGone;
  } catch (const UsageError& error) {
    return report(error.what(), kWrongUsage);
  } catch (const Error& error) {
    return report(error.what(), kBadInput);
  } catch (const std::bad_alloc&) {
    return report("there is not enough memory", kInternalError);
  } catch (const std::exception& error) {
    return report(std::string("internal error: ") + error.what(), kInternalError);
  }
}

}  // namespace
}  // namespace plait

int main(int argc, char** argv) {
  plait::install_signals();
  const int code = plait::guarded(argc, argv);
  // What standard output still buffers could not be written; a second attempt at exit would be as futile.
  if (code == plait::kReaderGone || code == plait::kBadInput) _exit(code);
  return code;
}
