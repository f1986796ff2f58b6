// What the journals share: files that only grow, and little-endian records with a CRC.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

namespace plait {

static_assert(std::endian::native == std::endian::little, "records are written as they lie in memory");

std::uint32_t crc_of(std::span<const char> bytes);  // CRC-32 as in zip files

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

// A file that is written at its end, by one process at a time. Every member throws Error naming the file as
// "WHAT 'PATH'" and the reason.
class AppendFile {
 public:
  // Made if it is not there. Throws Error, too, while somebody else has it.
  explicit AppendFile(const std::string& path, std::string what = "journal");
  ~AppendFile();
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;

  const std::string& path() const { return path_; }
  std::vector<char> contents() const;
  void cut(std::size_t bytes);  // keeps that many from its beginning
  void append(std::span<const char> bytes);
  void flush();  // to the disk; throws Error, too, if the file was removed meanwhile

  // Of a file that is there; nothing is made.
  static std::vector<char> read(const std::string& path, const std::string& what = "journal");

 private:
  std::string path_, what_;
  int file_ = -1;
};

}  // namespace plait
