#include "runtime/base/arena.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

namespace plait {

void poison([[maybe_unused]] void* data, [[maybe_unused]] std::size_t bytes) {
#ifdef PLAIT_POISON
  if (bytes > 0) std::memset(data, 0xff, bytes);  // all bits set is a NaN in every float format
#endif
}

Buffer::Buffer(std::size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  const std::size_t padded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  data_.reset(std::aligned_alloc(kAlignment, padded));
  if (!data_) throw std::bad_alloc();
  poison(data_.get(), padded);
}

Buffer::Buffer(const Buffer& other) : Buffer(other.bytes_) {
  if (bytes_ > 0) std::memcpy(data_.get(), other.data_.get(), bytes_);
}

Buffer& Buffer::operator=(Buffer other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

void Buffer::zero() {
  if (bytes_ > 0) std::memset(data_.get(), 0, bytes_);
}

void Buffer::Free::operator()(void* p) const { std::free(p); }

void* Arena::take_bytes(std::size_t bytes) {
  constexpr std::size_t kFirstBlock = std::size_t{1} << 20;
  bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  // Blocks never move, so what was taken stays valid; a block too small for this request is left for later
  // ones.
  while (block_ < blocks_.size() && used_ + bytes > blocks_[block_].bytes()) {
    ++block_;
    used_ = 0;
  }
  if (block_ == blocks_.size())
    blocks_.emplace_back(std::max({bytes, kFirstBlock, blocks_.empty() ? 0 : 2 * blocks_.back().bytes()}));
  void* place = blocks_[block_].as<std::byte>() + used_;
  used_ += bytes;
  poison(place, bytes);
  return place;
}

Arena& scratch() {
  thread_local Arena arena;
  return arena;
}

}  // namespace plait
