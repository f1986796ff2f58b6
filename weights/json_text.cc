#include "weights/json_text.h"

#include <cstdint>
#include <set>

#include "runtime/base/error.h"

namespace plait {
namespace {

constexpr std::size_t kMaxText = std::size_t{16} << 20;
constexpr int kMaxDepth = 64;
constexpr std::size_t kMaxShown = 200;

// Bytes of the well-formed character at `at`; 0 if there is none (Unicode 15, table 3-7).
std::size_t character(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) -> unsigned {
    return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0u;
  };
  const auto within = [&](std::size_t i, unsigned low, unsigned high) {
    return low <= byte(i) && byte(i) <= high;
  };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead < 0xc2 || lead > 0xf4) return 0;
  if (lead < 0xe0) return within(1, 0x80, 0xbf) ? 2 : 0;
  const unsigned low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
  const unsigned high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
  if (!within(1, low, high) || !within(2, 0x80, 0xbf)) return 0;
  if (lead < 0xf0) return 3;
  return within(3, 0x80, 0xbf) ? 4 : 0;
}

// Follows the parser and refuses what it would let pass: deep nesting (its users recurse) and repeated keys
// (it would keep the last).
class Watch {
 public:
  explicit Watch(const std::string& what) : what_(what) {}

  bool operator()(int depth, Json::parse_event_t event, const Json& value) {
    using Event = Json::parse_event_t;
    if (depth > kMaxDepth) fail(what_, " is nested more than ", kMaxDepth, " deep");
    if (event == Event::object_start) keys_.emplace_back();
    if (event == Event::object_end) keys_.pop_back();
    if (event == Event::key && !keys_.back().insert(value.get<std::string>()).second)
      fail(what_, " gives key '", printable(value.get<std::string>()), "' twice");
    return true;
  }

 private:
  const std::string& what_;
  std::vector<std::set<std::string>> keys_;
};

}  // namespace

bool is_utf8(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = character(text, at);
    if (length == 0) return false;
    at += length;
  }
  return true;
}

std::string printable(std::string_view text) {
  constexpr const char* kHex = "0123456789abcdef";
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    if (out.size() >= kMaxShown) return out + "...";
    const std::size_t length = character(text, at);
    const auto byte = static_cast<unsigned char>(text[at]);
    if (length == 0 || byte < 0x20 || byte == 0x7f ||
        (byte == 0xc2 && static_cast<unsigned char>(text[at + 1]) < 0xa0)) {
      out += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
      ++at;
    } else {
      out += text.substr(at, length);
      at += length;
    }
  }
  return out;
}

Json parse_json(std::string_view text, const std::string& what) {
  if (text.size() > kMaxText) fail(what, " has ", text.size(), " bytes, at most ", kMaxText, " are read");
  if (text.find('\0') != std::string_view::npos) fail(what, " contains a NUL character");
  if (!is_utf8(text)) fail(what, " is not valid UTF-8");
  try {
    return Json::parse(text, Watch(what));
  } catch (const Json::exception& error) {
    fail(what, " is not valid JSON: ", printable(error.what()));
  }
}

}  // namespace plait
