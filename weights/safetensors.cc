#include "weights/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <limits>
#include <set>

#include "runtime/base/error.h"
#include "weights/json_text.h"
#include "weights/resources.h"

namespace plait {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMaxHeader = std::uint64_t{16} << 20;  // what parse_json reads
constexpr std::uint64_t kMaxIndex = std::uint64_t{16} << 20;
constexpr std::size_t kMaxRank = 8;
constexpr std::size_t kLengthBytes = 8;
constexpr std::size_t kAlignment = 64;

// Bytes of an element; 0 for a type the format does not have.
std::uint64_t element_bytes(const std::string& type) {
  static const std::map<std::string, std::uint64_t> kTypes = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"F8_E8M0", 1},
      {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},     {"U32", 4},
      {"F32", 4},  {"F64", 8}, {"I64", 8}, {"U64", 8},     {"C64", 8}};
  const auto found = kTypes.find(type);
  return found == kTypes.end() ? 0 : found->second;
}

std::uint64_t whole_number(const Json& value, const std::string& what) {
  if (!value.is_number_integer() || (!value.is_number_unsigned() && value.get<std::int64_t>() < 0))
    fail(what, " must be a whole number that is not negative, found ", printable(value.dump()));
  return value.get<std::uint64_t>();
}

Shape read_shape(const Json& list, const std::string& where) {
  if (!list.is_array()) fail(where, ": 'shape' must be a list, found ", printable(list.dump()));
  if (list.size() > kMaxRank)
    fail(where, ": has ", list.size(), " dimensions, at most ", kMaxRank, " are read");
  Shape shape;
  for (const Json& size : list) {
    const std::uint64_t n = whole_number(size, cat(where, ": a size of 'shape'"));
    if (n > static_cast<std::uint64_t>(std::numeric_limits<Index>::max()))
      fail(where, ": has the impossible shape ", printable(list.dump()));
    shape.push_back(static_cast<Index>(n));
  }
  return shape;
}

std::uint64_t checked_bytes(const SafetensorsEntry& entry, const std::string& where) {
  std::uint64_t bytes = element_bytes(entry.type);
  for (const Index size : entry.shape)
    if (__builtin_mul_overflow(bytes, static_cast<std::uint64_t>(size), &bytes))
      fail(where, ": shape ", to_string(entry.shape), " of ", entry.type,
           " has more bytes than can be counted");
  return bytes;
}

SafetensorsEntry read_entry(const Json& json, const std::string& where) {
  if (!json.is_object()) fail(where, ": must be described by an object, found ", printable(json.dump()));
  for (const char* key : {"dtype", "shape", "data_offsets"})
    if (!json.contains(key)) fail(where, ": lacks '", key, "'");
  if (json.size() != 3)
    fail(where, ": has keys besides dtype, shape and data_offsets: ", printable(json.dump()));
  SafetensorsEntry entry;
  if (!json["dtype"].is_string() || element_bytes(json["dtype"].get<std::string>()) == 0)
    fail(where, ": has the unknown dtype ", printable(json["dtype"].dump()));
  entry.type = json["dtype"].get<std::string>();
  entry.shape = read_shape(json["shape"], where);
  const Json& offsets = json["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2)
    fail(where, ": 'data_offsets' must be a list of two numbers, found ", printable(offsets.dump()));
  entry.begin = whole_number(offsets[0], cat(where, ": a data offset"));
  entry.end = whole_number(offsets[1], cat(where, ": a data offset"));
  return entry;
}

void check_place(const SafetensorsEntry& entry, std::uint64_t data_bytes, const std::string& where) {
  const std::uint64_t bytes = checked_bytes(entry, where);
  if (entry.begin > entry.end || entry.end > data_bytes)
    fail(where, ": its data offsets [", entry.begin, ", ", entry.end, ") do not lie in the ", data_bytes,
         " bytes behind the header");
  if (entry.end - entry.begin != bytes)
    fail(where, ": its data offsets [", entry.begin, ", ", entry.end, ") give it ", entry.end - entry.begin,
         " bytes, shape ", to_string(entry.shape), " of ", entry.type, " has ", bytes);
  if (entry.begin % element_bytes(entry.type) != 0)
    fail(where, ": its data offset ", entry.begin, " is no multiple of the ", element_bytes(entry.type),
         " bytes of an ", entry.type);
}

// Every byte behind the header belongs to exactly one tensor.
void check_cover(const std::map<std::string, SafetensorsEntry>& entries, std::uint64_t data_bytes,
                 const std::string& where) {
  std::vector<const std::pair<const std::string, SafetensorsEntry>*> order;
  for (const auto& entry : entries) order.push_back(&entry);
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
  });
  std::uint64_t at = 0;
  const std::string* before = nullptr;
  for (const auto* entry : order) {
    if (entry->second.begin < at)
      fail(where, ": tensors '", printable(*before), "' and '", printable(entry->first),
           "' overlap: one ends at ", at, ", the other begins at ", entry->second.begin);
    if (entry->second.begin > at)
      fail(where, ": bytes ", at, " to ", entry->second.begin, " before tensor '", printable(entry->first),
           "' belong to no tensor");
    at = entry->second.end;
    before = &entry->first;
  }
  if (at != data_bytes)
    fail(where, ": the last tensor ends at ", at, ", but ", data_bytes, " bytes follow the header");
}

// A whole file, mapped; empty files have no bytes.
struct Mapped {
  std::shared_ptr<const void> owner;
  std::span<const std::byte> bytes;
};

Mapped map_file(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe must not hold us up
  if (file < 0) fail("cannot open file '", path, "': ", std::strerror(errno));
  struct stat stats {};
  if (::fstat(file, &stats) != 0 || !S_ISREG(stats.st_mode)) {
    ::close(file);
    fail("cannot open file '", path, "': it is not a regular file");
  }
  const auto size = static_cast<std::size_t>(stats.st_size);
  void* start = size == 0 ? nullptr : ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
  const int error = errno;
  ::close(file);
  if (start == MAP_FAILED) fail("cannot map file '", path, "': ", std::strerror(error));
  if (!start) return {};
  return {{start, [size](const void* p) { ::munmap(const_cast<void*>(p), size); }},
          {static_cast<const std::byte*>(start), size}};
}

std::uint64_t little_endian(const std::byte* bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < kLengthBytes; ++i) value |= std::to_integer<std::uint64_t>(bytes[i]) << (8 * i);
  return value;
}

// A shard's name is a plain file name: an index may not reach out of its folder.
void check_shard_name(const std::string& name, const std::string& index) {
  if (name.empty() || name.find('/') != std::string::npos || name == "." || name == ".." ||
      printable(name) != name)
    fail("file '", index, "' names the shard '", printable(name), "', which is no plain file name");
}

std::map<std::string, std::string> read_index(const std::string& path) {
  const Mapped file = map_file(path);
  if (file.bytes.size() > kMaxIndex)
    fail("file '", path, "' has ", file.bytes.size(), " bytes, at most ", kMaxIndex, " are read");
  const Json index = parse_json({reinterpret_cast<const char*>(file.bytes.data()), file.bytes.size()},
                                cat("file '", path, "'"));
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object())
    fail("file '", path, "' has no object 'weight_map'");
  std::map<std::string, std::string> shards;
  for (const auto& [name, shard] : index["weight_map"].items()) {
    if (!shard.is_string())
      fail("file '", path, "': the shard of '", printable(name), "' must be a file name, found ",
           printable(shard.dump()));
    check_shard_name(shard.get<std::string>(), path);
    shards[name] = shard.get<std::string>();
  }
  return shards;
}

}  // namespace

std::map<std::string, SafetensorsEntry> parse_safetensors_header(std::string_view json,
                                                                 std::uint64_t data_bytes,
                                                                 const std::string& where) {
  if (json.empty() || json.front() != '{') fail(where, ": its header does not begin with '{'");
  const Json header = parse_json(json, cat("the header of ", where));
  std::map<std::string, SafetensorsEntry> entries;
  for (const auto& [name, description] : header.items()) {
    if (name == "__metadata__") {
      if (!description.is_object()) fail(where, ": '__metadata__' must be an object");
      continue;
    }
    const std::string tensor = cat(where, ", tensor '", printable(name), "'");
    SafetensorsEntry entry = read_entry(description, tensor);
    check_place(entry, data_bytes, tensor);
    entries.emplace(name, std::move(entry));
  }
  check_cover(entries, data_bytes, where);
  return entries;
}

void Safetensors::add(const std::string& path) {
  const Mapped file = map_file(path);
  const std::string where = cat("file '", path, "'");
  if (file.bytes.size() < kLengthBytes)
    fail(where, " has ", file.bytes.size(), " bytes, a safetensors file has at least ", kLengthBytes);
  const std::uint64_t header = little_endian(file.bytes.data()), rest = file.bytes.size() - kLengthBytes;
  if (header > kMaxHeader)
    fail(where, " says its header has ", header, " bytes, at most ", kMaxHeader, " are read");
  if (header > rest) fail(where, " is cut: it says its header has ", header, " bytes, ", rest, " are there");
  const char* text = reinterpret_cast<const char*>(file.bytes.data() + kLengthBytes);
  for (auto& [name, entry] : parse_safetensors_header({text, header}, rest - header, where)) {
    const auto bytes = file.bytes.subspan(kLengthBytes + header + entry.begin, entry.end - entry.begin);
    const auto [other, fresh] = tensors_.try_emplace(name, Entry{entry.type, entry.shape, bytes, path});
    if (!fresh) fail("tensor '", printable(name), "' is in both '", other->second.file, "' and '", path, "'");
  }
  files_.push_back(file.owner);
}

Safetensors Safetensors::open(const std::string& path) {
  Safetensors file;
  file.add(path);
  return file;
}

Safetensors Safetensors::open_folder(const std::string& folder) {
  const std::string single = (fs::path(folder) / "model.safetensors").string();
  const std::string index = (fs::path(folder) / "model.safetensors.index.json").string();
  std::error_code ignored;
  const bool has_single = fs::exists(single, ignored), has_index = fs::exists(index, ignored);
  if (has_single && has_index)
    fail("folder '", folder,
         "' has both model.safetensors and model.safetensors.index.json; keep one of them");
  if (has_single) return open(single);
  if (!has_index)
    fail("folder '", folder, "' has neither model.safetensors nor model.safetensors.index.json");
  const auto where = read_index(index);
  std::set<std::string> shards;
  for (const auto& [name, shard] : where) shards.insert(shard);
  Safetensors all;
  for (const std::string& shard : shards) all.add((fs::path(folder) / shard).string());
  for (const auto& [name, shard] : where) {
    const auto found = all.tensors_.find(name);
    if (found == all.tensors_.end() || fs::path(found->second.file).filename() != shard)
      fail("file '", index, "' says tensor '", printable(name), "' is in '", shard,
           "', which does not have it");
  }
  for (const auto& [name, entry] : all.tensors_)
    if (!where.contains(name))
      fail("file '", entry.file, "' has tensor '", printable(name), "', which '", index, "' does not list");
  return all;
}

DType Safetensors::dtype_of(const std::string& name, const Entry& entry) {
  if (entry.type == "F32") return DType::f32;
  if (entry.type == "BF16") return DType::bf16;
  if (entry.type == "F16") return DType::f16;
  fail("file '", entry.file, "', tensor '", printable(name), "': has type ", entry.type,
       ", weights must be F32, BF16 or F16");
}

void Safetensors::release(const Entry& entry) {
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto first = reinterpret_cast<std::uintptr_t>(entry.bytes.data());
  const std::uintptr_t begin = (first + page - 1) / page * page,
                       end = (first + entry.bytes.size()) / page * page;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

namespace {

const char* type_name(DType dtype) {
  if (dtype == DType::f32) return "F32";
  if (dtype == DType::bf16) return "BF16";
  if (dtype == DType::f16) return "F16";
  fail(name_of(dtype), " tensors cannot be written to a safetensors file: only f32, bf16 and f16");
}

std::uint64_t bytes_of_item(const SafetensorsWriter::Item& item) {
  return static_cast<std::uint64_t>(element_count(item.shape)) * bytes_of(item.dtype);
}

// Length and JSON, padded with spaces so that the data are aligned.
std::string header_of(const std::vector<SafetensorsWriter::Item>& items) {
  Json header = Json::object();
  header["__metadata__"] = {{"format", "pt"}};
  std::uint64_t at = 0;
  for (const auto& item : items) {
    const std::uint64_t end = at + bytes_of_item(item);
    header[item.name] = {
        {"dtype", type_name(item.dtype)}, {"shape", item.shape}, {"data_offsets", {at, end}}};
    at = end;
  }
  std::string json = header.dump();
  json.resize((kLengthBytes + json.size() + kAlignment - 1) / kAlignment * kAlignment - kLengthBytes, ' ');
  if (json.size() > kMaxHeader)
    fail("a safetensors header of ", items.size(), " tensors has ", json.size(), " bytes, at most ",
         kMaxHeader, " are written");
  std::string whole;
  for (std::size_t i = 0; i < kLengthBytes; ++i) whole += static_cast<char>(json.size() >> (8 * i) & 0xff);
  return whole + json;
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(const std::string& path, const std::string& shown,
                                     std::vector<Item> items)
    : shown_(shown), items_(std::move(items)) {
  std::sort(items_.begin(), items_.end(), [](const Item& a, const Item& b) {
    return std::pair(bytes_of(b.dtype), a.name) < std::pair(bytes_of(a.dtype), b.name);
  });
  const std::string header = header_of(items_);
  std::uint64_t bytes = header.size();
  for (const Item& item : items_) bytes += bytes_of_item(item);
  require_disk(bytes, path);
  file_ = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (file_ < 0) fail("cannot write file '", shown_, "': ", std::strerror(errno));
  left_ = bytes;
  try {
    append(std::as_bytes(std::span(header)));
  } catch (...) {
    ::close(file_);
    throw;
  }
}

SafetensorsWriter::~SafetensorsWriter() {
  if (file_ >= 0) ::close(file_);
}

void SafetensorsWriter::append(std::span<const std::byte> bytes) {
  assert(bytes.size() <= left_);
  left_ -= bytes.size();
  while (!bytes.empty()) {
    const ssize_t done =
        ::write(file_, bytes.data(), std::min<std::size_t>(bytes.size(), std::size_t{1} << 30));
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) fail("cannot write file '", shown_, "': ", std::strerror(errno));
    bytes = bytes.subspan(static_cast<std::size_t>(done));
  }
}

void SafetensorsWriter::finish() {
  assert(left_ == 0);
  if (::close(std::exchange(file_, -1)) != 0)
    fail("cannot write file '", shown_, "': ", std::strerror(errno));
}

}  // namespace plait
