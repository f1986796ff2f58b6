// Scratch memory and aligned buffers.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "runtime/base/view.h"

namespace plait {

inline constexpr std::size_t kAlignment = 64;

// Fills with NaN in builds with PLAIT_POISON (debug), otherwise leaves memory as it is.
void poison(void* data, std::size_t bytes);

// A 64-byte aligned block that owns its memory; a value (copying copies the bytes).
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::size_t bytes);  // poisoned in debug builds
  Buffer(const Buffer& other);
  Buffer(Buffer&& other) noexcept : data_(std::move(other.data_)), bytes_(std::exchange(other.bytes_, 0)) {}
  Buffer& operator=(Buffer other) noexcept;
  std::size_t bytes() const { return bytes_; }
  template <class T = float>
  T* as() {
    return static_cast<T*>(data_.get());
  }
  template <class T = float>
  const T* as() const {
    return static_cast<const T*>(data_.get());
  }
  void zero();

 private:
  struct Free {
    void operator()(void* p) const;
  };
  std::unique_ptr<void, Free> data_;
  std::size_t bytes_ = 0;
};

// Bump allocator. Taking is a pointer addition once the arena has grown to its working size; everything taken
// inside a Scope is given back when the Scope ends. Not thread-safe: each thread uses its own, see
// `scratch()`.
class Arena {
 public:
  class Scope {
   public:
    explicit Scope(Arena& arena) : arena_(arena), block_(arena.block_), used_(arena.used_) {}
    ~Scope() {
      arena_.block_ = block_;
      arena_.used_ = used_;
    }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

    // `count` elements, 64-byte aligned, poisoned in debug builds.
    template <class T = float>
    T* take(Index count) {
      return static_cast<T*>(arena_.take_bytes(static_cast<std::size_t>(count) * sizeof(T)));
    }
    // [rows, cols], rows contiguous.
    View<float> rows(Index rows, Index cols) { return {take<float>(rows * cols), rows, cols}; }

   private:
    Arena& arena_;
    std::size_t block_, used_;
  };

 private:
  void* take_bytes(std::size_t bytes);
  std::vector<Buffer> blocks_;
  std::size_t block_ = 0, used_ = 0;
};

// The calling thread's arena: `Arena::Scope scope(scratch());`
Arena& scratch();

}  // namespace plait
