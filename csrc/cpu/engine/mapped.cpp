#include "engine/mapped.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>

namespace inreach {
namespace {

// Mappings smaller than this stay as they are: touching their pages anew would cost every search some time.
constexpr size_t kLargeMapping = size_t{3} << 29;
constexpr size_t kResident = size_t{1} << 28;

// Pages of files in this process's memory, in bytes; 0 where the system does not tell.
size_t resident_file_bytes() {
#if defined(__linux__)
    std::FILE* const file = std::fopen("/proc/self/statm", "re");
    if (file == nullptr) return 0;
    unsigned long size = 0, resident = 0, shared = 0;
    const int read = std::fscanf(file, "%lu %lu %lu", &size, &resident, &shared);
    std::fclose(file);
    return read == 3 ? static_cast<size_t>(shared) * static_cast<size_t>(sysconf(_SC_PAGESIZE)) : 0;
#else
    return 0;
#endif
}

std::atomic<size_t> at_last_drop{0};

}  // namespace

void drop_pages(const void* data, size_t bytes) {
    const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    const uintptr_t first = (reinterpret_cast<uintptr_t>(data) + page - 1) / page * page;
    const uintptr_t last = (reinterpret_cast<uintptr_t>(data) + bytes) / page * page;
    if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

void limit_resident(const RowSet& rows) {
    if (rows.mapped_bytes < kLargeMapping) return;
    const size_t now = resident_file_bytes(), before = at_last_drop.load();
    if (before == 0 || now < before) {
        at_last_drop.store(now);
    } else if (now - before > kResident) {
        drop_pages(rows.data, rows.mapped_bytes);
        at_last_drop.store(resident_file_bytes());
    }
}

}  // namespace inreach
