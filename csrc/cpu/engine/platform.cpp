#include "engine/platform.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>

#if defined(_WIN32)
#include <malloc.h>
#include <process.h>
#else
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace inreach {

#if defined(_WIN32)

void* allocate_aligned(size_t alignment, size_t bytes) { return _aligned_malloc(bytes, alignment); }
void free_aligned(void* memory) { _aligned_free(memory); }
void prefer_large_pages(void*, size_t) {}
void release_mapped_pages(const void*, size_t) {}
long process_id() { return _getpid(); }

#else

void* allocate_aligned(size_t alignment, size_t bytes) { return std::aligned_alloc(alignment, bytes); }
void free_aligned(void* memory) { std::free(memory); }

void prefer_large_pages([[maybe_unused]] void* memory, [[maybe_unused]] size_t bytes) {
#if defined(MADV_HUGEPAGE)
    madvise(memory, bytes, MADV_HUGEPAGE);
#endif
}

void release_mapped_pages(const void* data, size_t bytes) {
    const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    const uintptr_t first = (reinterpret_cast<uintptr_t>(data) + page - 1) / page * page;
    const uintptr_t last = (reinterpret_cast<uintptr_t>(data) + bytes) / page * page;
    if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

long process_id() { return getpid(); }

#endif

#if defined(__linux__)

namespace {

// /proc/self/statm, kept open by each thread: opening it takes longer than reading it.
class MemoryStatistics {
  public:
    MemoryStatistics() = default;
    MemoryStatistics(const MemoryStatistics&) = delete;
    MemoryStatistics& operator=(const MemoryStatistics&) = delete;
    ~MemoryStatistics() { close_file(); }

    size_t shared_bytes() {
        const long process = process_id();
        if (process != process_) {  // a forked process would read its parent's
            close_file();
            file_ = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
            process_ = process;
        }
        char text[128];
        const ssize_t length = file_ < 0 ? 0 : pread(file_, text, sizeof text - 1, 0);
        if (length <= 0) return 0;
        text[length] = '\0';
        unsigned long size = 0, resident = 0, shared = 0;
        const int fields = std::sscanf(text, "%lu %lu %lu", &size, &resident, &shared);
        return fields == 3 ? static_cast<size_t>(shared) * static_cast<size_t>(sysconf(_SC_PAGESIZE)) : 0;
    }

  private:
    void close_file() {
        if (file_ >= 0) close(file_);
        file_ = -1;
    }

    long process_ = 0;
    int file_ = -1;
};

}  // namespace

size_t resident_file_bytes() {
    thread_local MemoryStatistics statistics;
    return statistics.shared_bytes();
}

int usable_processors() {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
    return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

#else

size_t resident_file_bytes() { return 0; }
int usable_processors() { return static_cast<int>(std::max(1u, std::thread::hardware_concurrency())); }

#endif

}  // namespace inreach
