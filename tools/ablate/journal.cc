#include "tools/ablate/journal.h"

#include <fcntl.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "runtime/base/error.h"

namespace plait::ablate {
namespace {

constexpr std::string_view kMagic = "PLAITJ01";
constexpr std::size_t kHeader = 8 + 64;
constexpr std::size_t kPerScore = 4 + 4 + 4 + 1;

std::uint32_t crc_of(std::span<const char> bytes) {
  return static_cast<std::uint32_t>(
      crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), static_cast<z_size_t>(bytes.size())));
}

template <class T>
void put(std::vector<char>& bytes, T value) {
  const auto* raw = reinterpret_cast<const char*>(&value);
  bytes.insert(bytes.end(), raw, raw + sizeof value);
}

template <class T>
T get(std::span<const char> bytes, std::size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

std::vector<char> record_of(const UnitScores& unit) {
  std::vector<char> bytes;
  bytes.reserve(16 + unit.scores.size() * kPerScore);
  for (const Index value : {unit.unit, unit.conditions, unit.tokens})
    put(bytes, static_cast<std::uint32_t>(value));
  for (const TokenScores& s : unit.scores) put(bytes, s.nll);
  for (const TokenScores& s : unit.scores) put(bytes, s.kl);
  for (const TokenScores& s : unit.scores) put(bytes, s.rank);
  for (const TokenScores& s : unit.scores) put(bytes, s.agree);
  put(bytes, crc_of(bytes));
  return bytes;
}

// Bytes of the whole and undamaged record at `at`; 0 if there is none.
std::size_t record_size(std::span<const char> bytes, std::size_t at) {
  if (bytes.size() - at < 16) return 0;
  const std::uint64_t count =
      std::uint64_t{get<std::uint32_t>(bytes, at + 4)} * get<std::uint32_t>(bytes, at + 8);
  if (count > (bytes.size() - at) / kPerScore) return 0;
  const std::size_t size = 12 + static_cast<std::size_t>(count) * kPerScore;
  if (bytes.size() - at < size + 4) return 0;
  return crc_of(bytes.subspan(at, size)) == get<std::uint32_t>(bytes, at + size) ? size + 4 : 0;
}

UnitScores parse(std::span<const char> bytes, std::size_t at) {
  UnitScores unit;
  unit.unit = get<std::uint32_t>(bytes, at);
  unit.conditions = get<std::uint32_t>(bytes, at + 4);
  unit.tokens = get<std::uint32_t>(bytes, at + 8);
  const auto count = static_cast<std::size_t>(unit.conditions * unit.tokens);
  unit.scores.resize(count);
  const std::size_t nll = at + 12, kl = nll + 4 * count, rank = kl + 4 * count, agree = rank + 4 * count;
  for (std::size_t i = 0; i < count; ++i)
    unit.scores[i] = {get<float>(bytes, nll + 4 * i), get<float>(bytes, kl + 4 * i),
                      get<std::int32_t>(bytes, rank + 4 * i), get<std::uint8_t>(bytes, agree + i)};
  return unit;
}

std::vector<char> contents(int file, const std::string& path) {
  std::vector<char> bytes;
  char block[1 << 16];
  for (;;) {
    const ssize_t count = ::read(file, block, sizeof block);
    if (count < 0) fail("journal '", path, "' cannot be read: ", std::strerror(errno));
    if (count == 0) return bytes;
    bytes.insert(bytes.end(), block, block + count);
  }
}

void check_header(std::span<const char> bytes, const std::string& path, const std::string& plan) {
  if (std::string_view(bytes.data(), kMagic.size()) != kMagic) fail("'", path, "' is no journal of a sweep");
  if (std::string_view(bytes.data() + kMagic.size(), 64) != plan)
    fail("journal '", path, "' belongs to another study: its plan, model, texts or arithmetic differ");
}

void write_all(int file, std::span<const char> bytes, const std::string& path) {
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t count = ::write(file, bytes.data() + done, bytes.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) fail("journal '", path, "' cannot be written: ", std::strerror(errno));
    done += static_cast<std::size_t>(count);
  }
  if (::fdatasync(file) != 0) fail("journal '", path, "' cannot be written: ", std::strerror(errno));
}

}  // namespace

Journal::Journal(const std::string& path, const std::string& plan_sha256) : path_(path) {
  file_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (file_ < 0) fail("journal '", path, "' cannot be opened: ", std::strerror(errno));
  const std::vector<char> bytes = contents(file_, path);
  std::size_t end = 0;
  if (bytes.size() >= kHeader) {
    check_header(bytes, path, plan_sha256);
    end = kHeader;
    while (const std::size_t size = record_size(bytes, end)) {
      done_.push_back(get<std::uint32_t>(bytes, end));
      end += size;
    }
  }
  if (::ftruncate(file_, static_cast<off_t>(end)) != 0 || ::lseek(file_, 0, SEEK_END) < 0)
    fail("journal '", path, "' cannot be written: ", std::strerror(errno));
  if (end == 0) {
    const std::string header = std::string(kMagic) + plan_sha256;
    write_all(file_, header, path);
  }
}

Journal::~Journal() {
  if (file_ >= 0) ::close(file_);
}

void Journal::append(const UnitScores& unit) {
  write_all(file_, record_of(unit), path_);
  done_.push_back(unit.unit);
}

std::vector<UnitScores> Journal::read(const std::string& path, const std::string& plan_sha256) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) fail("journal '", path, "' cannot be opened: ", std::strerror(errno));
  const std::vector<char> bytes = contents(file, path);
  ::close(file);
  if (bytes.size() < kHeader) fail("'", path, "' is no journal of a sweep");
  check_header(bytes, path, plan_sha256);
  std::vector<UnitScores> units;
  for (std::size_t at = kHeader; at < bytes.size();) {
    const std::size_t size = record_size(bytes, at);
    if (size == 0) fail("journal '", path, "' is damaged at byte ", at);
    units.push_back(parse(bytes, at));
    at += size;
  }
  std::stable_sort(units.begin(), units.end(), [](const auto& a, const auto& b) { return a.unit < b.unit; });
  return units;
}

}  // namespace plait::ablate
