// What the verbs share: exit codes, common flags, opening models and texts, output that is complete or
// absent.
#pragma once

#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/numerics.h"
#include "runtime/run/edit.h"
#include "runtime/run/model.h"
#include "runtime/text/tokenizer.h"

namespace CLI {
class App;
}

namespace plait {

struct Snapshot;  // runtime/run/stream.h

enum ExitCode : int {
  kDone = 0,
  kInternalError = 1,
  kWrongUsage = 2,
  kBadInput = 3,
  kCheckFailed = 4,
  kInterrupted = 130,  // by SIGINT or SIGTERM
  kReaderGone = 141,   // standard output is a pipe nobody reads any more
};

// Thrown by a verb for flags that do not go together; exit code 2.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Thrown when nobody reads standard output any more; ends the program without a message.
class ReaderGone : public std::exception {};

// Common flags.

struct Common {
  int threads = 0;       // 0: all cores this process may use
  std::string numerics;  // empty: the verb's default
  std::optional<std::uint64_t> seed;
  std::string json;  // file, "-" for standard output, empty for none
  bool quiet = false;
  std::uint64_t memory = 0;  // bytes; 0: no budget

  Compute compute(Numerics fallback) const;
  bool json_only() const { return json == "-"; }  // standard output carries only the JSON
};

// Declares --threads, --numerics, --seed, --json, --quiet, --memory. `numerics` names the verb's default in
// the help.
void add_common(CLI::App& verb, Common& common, const char* numerics);
// Declares --edits; what it names is read by read_edits.
void add_edits(CLI::App& verb, std::string& path);
// Declares --window and --sinks, which read_edits turns into edits (runtime/run/windows.h).
void add_window(CLI::App& verb, std::optional<Index>& window, Index& sinks);

// Input.

// The model that comes with plait; throws Error naming where it was looked for.
std::string bundled_model();
// Loads a model within the memory budget. Throws Error if `path` is no model.
std::shared_ptr<const Model> open_model(const std::string& path, const Common& common);
// Whether a model takes text at all: one converted from a folder without tokenizer files takes token ids
// only.
bool has_tokenizer(const Model& model);
// The tokenizer stored in the model; throws Error if there is none.
std::shared_ptr<const Tokenizer> tokenizer_of(const Model& model);
// The bytes of a token, or "<id>" where a vocabulary is larger than its tokenizer's (models with random
// weights).
std::string piece_of(const Tokenizer& tokenizer, Token token);
// A whole file, or standard input for "-".
std::string read_file(const std::string& path);
// A JSON file; throws Error naming file and place of a mistake.
Json read_json(const std::string& path);
// The edits a YAML or JSON file lists (tools/ablate/spec.h, parse_parts), in this model; an empty path gives
// none.
EditList read_edits(const std::string& path, const Model& model);
// The same, and after them the edits of a window.
EditList read_edits(const std::string& path, std::optional<Index> window, Index sinks, const Model& model);
// Token ids of a text file (separated by white space) or of a one-dimensional .npy of int32 or int64. Throws
// Error naming the first id outside [0, vocab).
std::vector<Token> read_tokens(const std::string& path, Index vocab);
// The arithmetic of the snapshot in file `path`, so that it can be gone on with. Throws Error where
// --numerics says otherwise.
Compute compute_of(const Snapshot& snapshot, const std::string& path, const Common& common);
// Throws Error when weights and states together exceed the budget.
void check_budget(const Common& common, const Model& model, std::size_t state_bytes);

// Output.

// That a verb overwrites nothing that it reads, and no file twice. Names are compared as files, through
// links; empty ones, "-", devices and pipes are nobody's. Throws UsageError naming the second.
void check_files(const std::vector<std::string>& read, const std::vector<std::string>& written);
// Standard output. Throws Error when it cannot be written (full disk) and ReaderGone when nobody reads it.
void print(std::string_view text);
void flush_output();
// One line on standard error, `plait: TEXT`, unless --quiet.
void note(const Common& common, const std::string& text);

// A file that appears whole or not at all: written beside its place, renamed by commit(). A destination that
// is no regular file (a pipe, a device) is written directly. Destroyed before commit(), it leaves nothing
// behind.
class OutputFile {
 public:
  explicit OutputFile(const std::string& path);
  ~OutputFile();
  OutputFile(OutputFile&&) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;
  void write(const void* data, std::size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  void commit();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The --json result: to its file, or to standard output for "-". Does nothing without --json.
void write_json(const Common& common, const Json& json);

// A progress line on a terminal, for work longer than two seconds. Nothing if standard error is no terminal
// or --quiet.
class Progress {
 public:
  Progress(const Common& common, std::string what);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  void update(double fraction, const std::string& detail = {});
  void clear();  // takes the line away, as the destructor does

 private:
  using Clock = std::chrono::steady_clock;
  std::string what_;
  bool active_, shown_ = false;
  Clock::time_point start_, last_;
};

// Numbers for people.

std::string human_bytes(double bytes);          // "1.5 MB"
std::string human_count(double count);          // "4.31 M"
std::string fixed(double value, int decimals);  // "3.1416"
// Columns aligned, the first to the left, numbers to the right where `right` says so.
std::string table(const std::vector<std::vector<std::string>>& rows, const std::string& align);

// Seconds since construction.
class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace plait
