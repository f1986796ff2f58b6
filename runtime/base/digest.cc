#include "runtime/base/digest.h"

// The one interface of OpenSSL whose running digest can be saved; deprecated since 3.0, and still there.
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/sha.h>

#include <array>
#include <cassert>
#include <cstring>

namespace plait {

struct Digest::Impl {
  SHA256_CTX context;
};

Digest::Digest() : impl_(std::make_unique<Impl>()) { SHA256_Init(&impl_->context); }
Digest::~Digest() = default;
Digest::Digest(Digest&&) noexcept = default;
Digest& Digest::operator=(Digest&&) noexcept = default;

void Digest::add(const void* data, std::size_t bytes) { SHA256_Update(&impl_->context, data, bytes); }

std::string Digest::hex() {
  std::array<unsigned char, SHA256_DIGEST_LENGTH> bytes{};
  SHA256_Final(bytes.data(), &impl_->context);
  std::string text;
  for (const unsigned char byte : bytes) {
    constexpr const char* kDigits = "0123456789abcdef";
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

std::string Digest::saved() const {
  std::string bytes(sizeof(SHA256_CTX), '\0');
  std::memcpy(bytes.data(), &impl_->context, bytes.size());
  return bytes;
}

bool Digest::can_resume(std::string_view saved) {
  SHA256_CTX context;
  if (saved.size() != sizeof context) return false;
  std::memcpy(&context, saved.data(), sizeof context);
  return context.md_len == SHA256_DIGEST_LENGTH && context.num < SHA256_CBLOCK &&
         context.num == context.Nl / 8 % SHA256_CBLOCK;
}

Digest Digest::resume(std::string_view saved) {
  assert(can_resume(saved));
  Digest digest;
  std::memcpy(&digest.impl_->context, saved.data(), saved.size());
  return digest;
}

std::string sha256(std::string_view text) {
  Digest digest;
  digest.add(text);
  return digest.hex();
}

}  // namespace plait
