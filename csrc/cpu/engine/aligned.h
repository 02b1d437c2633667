// Plain arrays: on a cache line's boundary and not initialised, or somebody else's.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

namespace inreach {

template <typename T>
class AlignedArray {
  public:
    AlignedArray() = default;
    explicit AlignedArray(size_t count) : count_(count) {
        if (count == 0) return;
        // Large arrays on large pages, where the system has them: searches jump about in them, and the tables
        // of small pages do not stay in cache.
        const size_t alignment = count * sizeof(T) >= 2 * kLargePage ? kLargePage : 64;
        const size_t bytes = (count * sizeof(T) + alignment - 1) / alignment * alignment;
        data_.reset(static_cast<T*>(std::aligned_alloc(alignment, bytes)));
        if (!data_) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
        if (alignment == kLargePage) madvise(data_.get(), bytes, MADV_HUGEPAGE);
#endif
    }

    T* data() { return data_.get(); }
    const T* data() const { return data_.get(); }
    size_t size() const { return count_; }
    T& operator[](size_t i) { return data_.get()[i]; }
    const T& operator[](size_t i) const { return data_.get()[i]; }

  private:
    static constexpr size_t kLargePage = size_t{1} << 21;

    struct Free {
        void operator()(T* pointer) const { std::free(pointer); }
    };
    std::unique_ptr<T, Free> data_;
    size_t count_ = 0;
};

// An array that is its own, or a view of memory that the caller keeps alive (a mapped file).
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
    T* writable() { return writable_; }  // null where it is a view to read from

  private:
    StoredArray(const T* data, T* writable, size_t count) : data_(data), writable_(writable), count_(count) {}

    AlignedArray<T> own_;
    const T* data_ = nullptr;
    T* writable_ = nullptr;
    size_t count_ = 0;
};

}  // namespace inreach
