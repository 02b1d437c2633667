#include "engine/mapped.h"

#include <algorithm>
#include <atomic>

#include "engine/platform.h"

namespace inreach {
namespace {

// Smaller mappings are left alone: reading their pages again would slow every search down.
constexpr size_t kLargeMapping = size_t{3} << 29;
constexpr size_t kResident = size_t{1} << 28;
// Rows between two checks. A row that is read brings its neighbours into memory: 16 pages (64 KiB), or
// megabytes where the system keeps the file in large pages. 64 rows of 2 MiB are half of kResident, 1024 rows
// of 64 KiB a quarter of it.
constexpr uint64_t kLeastBetween = 16, kFirstBetween = 64, kMostBetween = 1024;
static_assert(kFirstBetween * kLargePage <= kResident && kMostBetween * (size_t{1} << 16) <= kResident,
              "no check may come only after the limit was passed");

std::atomic<size_t> at_last_release{0};
thread_local uint64_t between = kFirstBetween;

}  // namespace

uint64_t limit_resident(const RowSet& rows) {
    if (rows.mapped_bytes < kLargeMapping) return kMostBetween;
    const size_t now = resident_file_bytes(), before = at_last_release.load();
    if (before == 0 || now < before) {
        at_last_release.store(now);
    } else if (now - before > kResident) {
        release_mapped_pages(rows.data, rows.mapped_bytes);
        at_last_release.store(resident_file_bytes());
        // Far over the limit: check sooner.
        if (now - before > kResident + kResident / 8) between = std::max(kLeastBetween, between / 2);
    } else {
        between = std::min(kMostBetween, between + between / 16);
    }
    return between;
}

}  // namespace inreach
