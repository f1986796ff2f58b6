// SHA-256 (OpenSSL's), as lower-case hex.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace plait {

class Digest {
 public:
  Digest();
  ~Digest();
  Digest(Digest&&) noexcept;
  Digest& operator=(Digest&&) noexcept;
  void add(const void* data, std::size_t bytes);
  void add(std::string_view text) { add(text.data(), text.size()); }
  std::string hex();  // ends the digest; call once

  // What it has taken in so far, to go on elsewhere: opaque bytes, for programs on the same machine type.
  std::string saved() const;
  static bool can_resume(std::string_view saved);  // of the right size and consistent in itself
  static Digest resume(std::string_view saved);    // asserts can_resume

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

std::string sha256(std::string_view text);

}  // namespace plait
