// Plain arrays: aligned to cache lines and not initialised, or views of somebody else's memory.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <type_traits>

#include "engine/platform.h"

namespace inreach {

template <typename T>
class AlignedArray {
    static_assert(std::is_trivially_copyable_v<T>, "elements are neither constructed nor destroyed");

  public:
    AlignedArray() = default;
    explicit AlignedArray(size_t count) : count_(count) {
        if (count == 0) return;
        if (count > (~size_t{0} - kLargePage) / sizeof(T)) throw std::bad_alloc();
        // Large arrays on large pages: searches read them at random, and the page tables of small pages do
        // not stay in cache.
        const size_t alignment = count * sizeof(T) >= 2 * kLargePage ? kLargePage : 64;
        const size_t bytes = (count * sizeof(T) + alignment - 1) / alignment * alignment;
        data_.reset(static_cast<T*>(allocate_aligned(alignment, bytes)));
        if (!data_) throw std::bad_alloc();
        if (alignment == kLargePage) prefer_large_pages(data_.get(), bytes);
    }

    T* data() { return data_.get(); }
    const T* data() const { return data_.get(); }
    size_t size() const { return count_; }
    T& operator[](size_t i) { return data_.get()[i]; }
    const T& operator[](size_t i) const { return data_.get()[i]; }

  private:
    struct Free {
        void operator()(T* pointer) const { free_aligned(pointer); }
    };
    std::unique_ptr<T, Free> data_;
    size_t count_ = 0;
};

// An array that owns its memory, or a view of memory that the caller keeps alive (a mapped file).
template <typename T>
class StoredArray {
  public:
    StoredArray() = default;
    explicit StoredArray(size_t count)
        : own_(count), data_(own_.data()), writable_(own_.data()), count_(count) {}
    static StoredArray view(const T* data, size_t count) { return StoredArray(data, nullptr, count); }
    static StoredArray writable_view(T* data, size_t count) { return StoredArray(data, data, count); }

    const T* data() const { return data_; }
    size_t size() const { return count_; }
    const T& operator[](size_t i) const { return data_[i]; }
    T* writable() { return writable_; }  // null for a read-only view

  private:
    StoredArray(const T* data, T* writable, size_t count) : data_(data), writable_(writable), count_(count) {}

    AlignedArray<T> own_;
    const T* data_ = nullptr;
    T* writable_ = nullptr;
    size_t count_ = 0;
};

}  // namespace inreach
