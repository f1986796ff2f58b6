#include "tools/program.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <set>

#include "runtime/base/error.h"
#include "runtime/base/parallel.h"
#include "runtime/kernels/kernels.h"
#include "runtime/run/stream.h"
#include "runtime/run/windows.h"
#include "runtime/text/utf8.h"
#include "tools/ablate/spec.h"
#include "tools/npy.h"
#include "tools/within.h"
#include "weights/json_text.h"
#include "weights/model_file.h"
#include "weights/snapshot_file.h"
#include "weights/temporary_file.h"

namespace plait {
namespace {

constexpr int kMaxThreads = 1024;
constexpr double kPatience = 2.0;  // seconds before a progress line appears
constexpr double kBetweenUpdates = 0.2;

std::string reason(int error) { return std::strerror(error); }

}  // namespace

// Common flags.

Compute Common::compute(Numerics fallback) const {
  Compute compute;
  compute.numerics = numerics.empty() ? fallback : parse_numerics(numerics);
  compute.isa = resolve_isa(Isa::automatic);
  compute.threads = threads > 0 ? threads : available_threads();
  if (compute.isa == Isa::portable && !std::getenv("PLAIT_ISA"))
    note(*this, "this machine has no AVX2 with FMA; the portable code is correct, but slow");
  return compute;
}

void add_common(CLI::App& verb, Common& common, const char* numerics) {
  verb.add_option("--threads", common.threads, "Threads (default: the cores this process may use)")
      ->check(CLI::Range(1, kMaxThreads));
  verb.add_option("--numerics", common.numerics, std::string("exact or fast (default: ") + numerics + ")")
      ->check(CLI::IsMember({"exact", "fast"}));
  // Whole and not negative: the library would wrap -1 around.
  verb.add_option("--seed", common.seed, "Seed of everything random (default: 0)")
      ->check(CLI::Validator(
          [](const std::string& text) {
            return text.find_first_not_of("0123456789") == std::string::npos ? ""
                                                                             : "'" + text + "' is no seed";
          },
          "UINT"));
  verb.add_option("--json", common.json, "Write the result as JSON to this file; - is standard output")
      ->type_name("FILE");
  verb.add_flag("--quiet", common.quiet, "No progress line, no messages but errors");
  verb.add_option("--memory", common.memory, "Memory budget for weights and states, e.g. 2000000000 or 2GB")
      ->transform(byte_size())
      ->type_name("BYTES");
}

void add_edits(CLI::App& verb, std::string& path) {
  verb.add_option("--edits", path, "Interventions: a YAML or JSON file with a list of edits")
      ->type_name("SPEC");
}

void add_window(CLI::App& verb, std::optional<Index>& window, Index& sinks) {
  auto* keys =
      verb.add_option("--window", window,
                      "Attention sees the latest N keys only; recurrent states go on. An intervention")
          ->check(CLI::Range(Index{1}, Index{1} << 40))
          ->type_name("N");
  verb.add_option("--sinks", sinks, "Attention sees the first N keys besides the window (default: 0)")
      ->check(CLI::Range(Index{0}, Index{1} << 40))
      ->type_name("N")
      ->needs(keys);
}

// Input.

std::string bundled_model() {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  const fs::path path = program.parent_path().parent_path() / "share/plait/tiny-hybrid.h5";
  if (error || !fs::exists(path, error))
    fail("the bundled model is not at '", path.string(), "'; name a model file");
  return path.string();
}

std::shared_ptr<const Model> open_model(const std::string& path, const Common& common) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  if (!error && common.memory > 0 && size > common.memory)
    fail("model '", path, "' takes ", human_bytes(static_cast<double>(size)),
         ", more than the --memory budget of ", human_bytes(static_cast<double>(common.memory)));
  if (!error && file_kind(path) == FileKind::snapshot)
    fail("'", path, "' is a snapshot of a stream, not a model; give it to 'plait run --load'");
  return load(path);
}

void check_budget(const Common& common, const Model& model, std::size_t state_bytes) {
  if (common.memory == 0) return;
  std::size_t weights = 0;
  for (const auto& [node, tensors] : model.data().tensors)
    for (const auto& [name, tensor] : tensors) weights += tensor.bytes;
  if (weights + state_bytes > common.memory)
    fail("weights (", human_bytes(static_cast<double>(weights)), ") and states (",
         human_bytes(static_cast<double>(state_bytes)), ") exceed the --memory budget of ",
         human_bytes(static_cast<double>(common.memory)));
}

bool has_tokenizer(const Model& model) {
  const auto& files = model.data().tokenizer;
  const auto description = files.find("plait_tokenizer.json");
  return description == files.end() ||
         Json::parse(description->second, nullptr, false) != Json{{"kind", "none"}};
}

std::shared_ptr<const Tokenizer> tokenizer_of(const Model& model) {
  if (!has_tokenizer(model))
    fail("model '", model.data().origin,
         "' has no tokenizer, because it was converted from a folder without one; it takes token ids only");
  return make_tokenizer(model.data().tokenizer, model.data().origin);
}

std::string piece_of(const Tokenizer& tokenizer, Token token) {
  return token < tokenizer.vocab() ? tokenizer.piece(token) : cat("<", token, ">");
}

std::string read_file(const std::string& path) {
  const bool input = path == "-";
  const int file = input ? STDIN_FILENO : ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) fail("cannot open '", path, "': ", reason(errno));
  const auto close = [&] {
    if (!input) ::close(file);
  };
  std::string bytes;
  std::vector<char> buffer(1 << 16);
  for (;;) {
    const ssize_t got = ::read(file, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      const int error = errno;
      close();
      fail("cannot read '", path, "': ", reason(error));
    }
    if (got == 0) break;
    bytes.append(buffer.data(), static_cast<std::size_t>(got));
  }
  close();
  return bytes;
}

Json read_json(const std::string& path) { return parse_json(read_file(path), cat("'", path, "'")); }

Compute compute_of(const Snapshot& snapshot, const std::string& path, const Common& common) {
  const std::string saved = snapshot.arithmetic.value("mode", "");
  if (!common.numerics.empty() && common.numerics != saved)
    fail("snapshot '", path, "' was saved with ", saved, " numerics, but --numerics says ", common.numerics);
  Compute compute = common.compute(parse_numerics(saved));
  if (snapshot.arithmetic.contains("isa") && !std::getenv("PLAIT_ISA")) {
    const Isa isa = parse_isa(snapshot.arithmetic.value("isa", ""));
    if (machine_has(isa)) compute.isa = isa;
  }
  return compute;
}

EditList read_edits(const std::string& path, const Model& model) {
  if (path.empty()) return {};
  const auto parts = ablate::parse_parts(ablate::read_document(read_file(path), path));
  try {
    return ablate::edits_of(parts, model);
  } catch (const Error& error) {
    fail("'", path, "': ", error.what());
  }
}

std::vector<Token> read_tokens(const std::string& path, Index vocab) {
  const std::string bytes = read_file(path);
  std::vector<std::int64_t> ids;
  if (is_npy(bytes)) {
    ids = parse_npy_integers(bytes, path);
  } else {
    const char* p = bytes.data();
    const char* const end = p + bytes.size();
    const auto space = [](char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; };
    for (;;) {
      while (p < end && space(*p)) ++p;
      if (p == end) break;
      std::int64_t id = 0;
      const auto [after, error] = std::from_chars(p, end, id);
      if (error != std::errc() || (after < end && !space(*after)))
        fail("'", path, "' holds no token id at byte ", p - bytes.data(), ": '",
             to_valid_utf8(
                 std::string_view(p, static_cast<std::size_t>(std::min<std::ptrdiff_t>(end - p, 12)))),
             "'");
      ids.push_back(id);
      p = after;
    }
  }
  std::vector<Token> tokens;
  tokens.reserve(ids.size());
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= vocab)
      fail("token ", i, " of '", path, "' is ", ids[i], ", outside the vocabulary of ", vocab);
    tokens.push_back(static_cast<Token>(ids[i]));
  }
  return tokens;
}

EditList read_edits(const std::string& path, std::optional<Index> window, Index sinks, const Model& model) {
  EditList edits = read_edits(path, model);
  if (!window) return edits;
  const EditList more = window_edits(model, *window, sinks);
  edits.insert(edits.end(), more.begin(), more.end());
  return edits;
}

// Output.

namespace {

[[noreturn]] void output_failed() {
  if (errno == EPIPE) throw ReaderGone();
  fail("cannot write to standard output: ", reason(errno));
}

}  // namespace

void check_files(const std::vector<std::string>& read, const std::vector<std::string>& written) {
  const auto is_file = [](const std::string& path) {
    std::error_code error;
    return !path.empty() && path != "-" &&
           (!std::filesystem::exists(path, error) || std::filesystem::is_regular_file(path, error));
  };
  std::set<std::string> inputs, outputs;
  for (const std::string& path : read)
    if (is_file(path)) inputs.insert(file_named(path));
  for (const std::string& path : written) {
    if (!is_file(path)) continue;
    const std::string file = file_named(path);
    if (inputs.contains(file)) throw UsageError(cat("'", path, "' would be read and written"));
    if (!outputs.insert(file).second) throw UsageError(cat("'", path, "' is the name of two outputs"));
  }
}

void print(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) output_failed();
}

void flush_output() {
  if (std::fflush(stdout) != 0) output_failed();
}

void note(const Common& common, const std::string& text) {
  if (!common.quiet) std::fprintf(stderr, "plait: %s\n", text.c_str());
}

struct OutputFile::Impl {
  std::string path;
  std::unique_ptr<TemporaryFile> temporary;  // null for devices and pipes
  int file = -1;
  std::string buffer;

  ~Impl() {
    if (file >= 0) ::close(file);
  }

  void drain() {
    const char* p = buffer.data();
    std::size_t left = buffer.size();
    while (left > 0) {
      const ssize_t done = ::write(file, p, left);
      if (done < 0 && errno == EINTR) continue;
      if (done < 0) fail("cannot write '", path, "': ", reason(errno));
      p += done;
      left -= static_cast<std::size_t>(done);
    }
    buffer.clear();
  }
};

OutputFile::OutputFile(const std::string& path) : impl_(std::make_unique<Impl>()) {
  impl_->path = path;
  std::string target = path;
  struct stat status;
  const bool special = ::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode);
  if (!special) {
    impl_->temporary = std::make_unique<TemporaryFile>(path);
    target = impl_->temporary->path();
  }
  impl_->file = ::open(target.c_str(), O_WRONLY | O_CLOEXEC | (special ? 0 : O_CREAT | O_TRUNC), 0666);
  if (impl_->file < 0) fail("cannot write '", path, "': ", reason(errno));
}

OutputFile::~OutputFile() = default;
OutputFile::OutputFile(OutputFile&&) noexcept = default;

void OutputFile::write(const void* data, std::size_t bytes) {
  impl_->buffer.append(static_cast<const char*>(data), bytes);
  if (impl_->buffer.size() >= (1 << 20)) impl_->drain();
}

void OutputFile::commit() {
  impl_->drain();
  if (::close(std::exchange(impl_->file, -1)) != 0) fail("cannot write '", impl_->path, "': ", reason(errno));
  if (impl_->temporary) impl_->temporary->commit();
}

void write_json(const Common& common, const Json& json) {
  if (common.json.empty()) return;
  const std::string text = json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  if (common.json_only()) return print(text);
  OutputFile file(common.json);
  file.write(text);
  file.commit();
}

Progress::Progress(const Common& common, std::string what)
    : what_(std::move(what)),
      active_(!common.quiet && ::isatty(STDERR_FILENO)),
      start_(Clock::now()),
      last_(start_) {}

Progress::~Progress() { clear(); }

void Progress::update(double fraction, const std::string& detail) {
  if (!active_) return;
  const auto now = Clock::now();
  const auto since = [&](Clock::time_point t) { return std::chrono::duration<double>(now - t).count(); };
  if (since(start_) < kPatience || since(last_) < kBetweenUpdates) return;
  last_ = now;
  shown_ = true;
  const double left = fraction > 0 ? since(start_) * (1 - fraction) / fraction : 0;
  std::fprintf(stderr, "\r\033[K%s %3.0f %%, %.0f s left%s%s", what_.c_str(), 100 * fraction, left,
               detail.empty() ? "" : ", ", detail.c_str());
  std::fflush(stderr);
}

void Progress::clear() {
  if (shown_) std::fputs("\r\033[K", stderr);
  shown_ = false;
}

// Numbers for people.

namespace {

std::string scaled(double value, double step, const char* const* units, int count) {
  int unit = 0;
  while (unit + 1 < count && std::abs(value) >= step) value /= step, ++unit;
  const int decimals = unit == 0 ? 0 : std::abs(value) < 10 ? 2 : std::abs(value) < 100 ? 1 : 0;
  return fixed(value, decimals) + units[unit];
}

}  // namespace

std::string human_bytes(double bytes) {
  static const char* const units[] = {" B", " kB", " MB", " GB", " TB"};
  return scaled(bytes, 1000, units, 5);
}

std::string human_count(double count) {
  static const char* const units[] = {"", " k", " M", " G"};
  return scaled(count, 1000, units, 4);
}

std::string fixed(double value, int decimals) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", decimals, value);
  return text;
}

std::string table(const std::vector<std::vector<std::string>>& rows, const std::string& align) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t c = 0; c < row.size(); ++c) {
      const std::string padding(widths[c] - row[c].size(), ' ');
      const bool right = c < align.size() && align[c] == 'r';
      line += (c > 0 ? "  " : "") + (right ? padding + row[c] : row[c] + padding);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

}  // namespace plait
