#include "engine/mapped.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>

namespace inreach {
namespace {

// Mappings smaller than this stay as they are: touching their pages anew would cost every search some time.
constexpr size_t kLargeMapping = size_t{3} << 29;
constexpr size_t kResident = size_t{1} << 28;
// Rows between two looks. A row that is touched brings its neighbours along: sixteen pages, or, where the
// system keeps the file in large pieces, megabytes.
constexpr uint64_t kLeastBetween = 16, kFirstBetween = 64, kMostBetween = 1024;

// Pages of files in this process's memory. Each thread keeps the system's account open: opening it would take
// longer than reading it.
class ResidentFiles {
  public:
    ResidentFiles() = default;
    ResidentFiles(const ResidentFiles&) = delete;
    ResidentFiles& operator=(const ResidentFiles&) = delete;
    ~ResidentFiles() { close_account(); }

    // In bytes; 0 where the system does not tell.
    size_t bytes() {
#if defined(__linux__)
        const pid_t process = getpid();
        if (process != process_) {  // a forked process would read of its parent
            close_account();
            account_ = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
            process_ = process;
        }
        char text[128];
        const ssize_t length = account_ < 0 ? 0 : pread(account_, text, sizeof text - 1, 0);
        if (length <= 0) return 0;
        text[length] = '\0';
        unsigned long size = 0, resident = 0, shared = 0;
        const int read = std::sscanf(text, "%lu %lu %lu", &size, &resident, &shared);
        return read == 3 ? static_cast<size_t>(shared) * static_cast<size_t>(sysconf(_SC_PAGESIZE)) : 0;
#else
        return 0;
#endif
    }

  private:
    void close_account() {
        if (account_ >= 0) close(account_);
        account_ = -1;
    }

    pid_t process_ = 0;
    int account_ = -1;
};

std::atomic<size_t> at_last_drop{0};
thread_local ResidentFiles resident_files;
thread_local uint64_t between = kFirstBetween;

}  // namespace

void drop_pages(const void* data, size_t bytes) {
    const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    const uintptr_t first = (reinterpret_cast<uintptr_t>(data) + page - 1) / page * page;
    const uintptr_t last = (reinterpret_cast<uintptr_t>(data) + bytes) / page * page;
    if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

uint64_t limit_resident(const RowSet& rows) {
    if (rows.mapped_bytes < kLargeMapping) return kMostBetween;
    const size_t now = resident_files.bytes(), before = at_last_drop.load();
    if (before == 0 || now < before) {
        at_last_drop.store(now);
    } else if (now - before > kResident) {
        drop_pages(rows.data, rows.mapped_bytes);
        at_last_drop.store(resident_files.bytes());
        // Too much came at once: look sooner.
        if (now - before > kResident + kResident / 8) between = std::max(kLeastBetween, between / 2);
    } else {
        between = std::min(kMostBetween, between + between / 16);
    }
    return between;
}

}  // namespace inreach
