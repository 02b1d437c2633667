#include "races.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>

namespace races {
namespace {

// "Strong": atomic, or through `volatile`. An atomic operation is a strong write.
enum Kind : unsigned { kRead, kWrite, kStrongRead, kStrongWrite, kKinds };

constexpr unsigned bit(unsigned kind) { return 1u << kind; }

// Which kinds each kind races with: one of the two writes, and one of the two is plain.
constexpr unsigned kRivals[kKinds] = {
    bit(kWrite) | bit(kStrongWrite),
    bit(kRead) | bit(kWrite) | bit(kStrongRead) | bit(kStrongWrite),
    bit(kWrite),
    bit(kRead) | bit(kWrite),
};

constexpr const char* kDone[kKinds] = {"read", "written", "read as volatile", "changed atomically"};
constexpr const char* kDoes[kKinds] = {"reads", "writes", "reads as volatile", "changes atomically"};

constexpr uint16_t kNobody = 0xffff;

// Who has done one kind of thing to a byte since the block's last barrier. Of several warps only one is kept,
// and one thread of the others: who comes after finds a rival among them all the same. Of that warp, the
// lanes since its last barrier: those before it are ordered with all of its lanes, and another warp has
// rivals enough.
struct Accesses {
    uint32_t epoch;       // of the block; of an older one nothing counts
    uint32_t warp_epoch;  // likewise of the warp
    uint32_t lanes;
    uint16_t warp;
    uint16_t other;
};

// What is known of one byte.
struct Byte {
    Accesses of[kKinds];
    // Across blocks: what the present one has done, and what those before it have.
    uint32_t launch, block;
    uint8_t now, before;  // bits of kinds
    uint16_t now_thread[kKinds], before_thread[kKinds];
    uint32_t before_block[kKinds];
};

struct Region {
    const unsigned char* begin;
    size_t bytes;
    bool shared;
    Byte* known;  // zeros, most of them never touched
};

std::map<const unsigned char*, Region> regions;  // by first byte

constexpr uintptr_t kPage = 4096;  // or a part of one: regions have pages of their own
constexpr size_t kFound = 1024;
struct Found {
    uintptr_t page;
    const Region* region;  // or null: no region is there
} found[kFound];

struct Launch {
    const char* kinds = "";
    void** arguments = nullptr;
    host::Index3 grid = {}, block = {};
    const unsigned char* shared_begin = nullptr;
} launch;

// Never the same twice, of launches and of what lies between two barriers of a block; 0 is none.
uint32_t launch_number = 0, epoch = 0;
uint32_t warp_epoch[32];
uint32_t block_number = 0;
unsigned running = 0;

const Region* region_of(const unsigned char* address) {
    const uintptr_t page = reinterpret_cast<uintptr_t>(address) / kPage + 1;
    Found& held = found[page % kFound];
    if (held.page != page) {
        held = {page, nullptr};
        auto after = regions.upper_bound(address);
        // A region may begin further on in this page, or end before this address.
        const auto in_page = [&](const Region& region) {
            const uintptr_t begin = reinterpret_cast<uintptr_t>(region.begin);
            return begin / kPage + 1 <= page && (begin + region.bytes + kPage - 1) / kPage + 1 > page;
        };
        if (after != regions.end() && in_page(after->second))
            held.region = &after->second;
        else if (after != regions.begin() && in_page((--after)->second))
            held.region = &after->second;
    }
    return held.region;
}

void clear_found() {
    for (Found& one : found) one = {0, nullptr};
}

struct Named {
    char text[64];
};

// Shared memory, or the pointer among the arguments that lies nearest before the address.
Named name_of(const Region& region, const unsigned char* address) {
    Named named;
    if (region.shared) {
        std::snprintf(named.text, sizeof named.text, "byte %zu of shared memory",
                      static_cast<size_t>(address - launch.shared_begin));
        return named;
    }
    const unsigned char* nearest = nullptr;
    int number = 0;
    for (int i = 0; launch.kinds[i]; ++i) {
        if (launch.kinds[i] != 'p') continue;
        const auto begin = *static_cast<const unsigned char* const*>(launch.arguments[i]);
        if (begin >= region.begin && begin <= address && begin > nearest) nearest = begin, number = i;
    }
    if (nearest)
        std::snprintf(named.text, sizeof named.text, "byte %zu of argument %d",
                      static_cast<size_t>(address - nearest), number);
    else
        std::snprintf(named.text, sizeof named.text, "byte %zu of a buffer of %zu bytes",
                      static_cast<size_t>(address - region.begin), region.bytes);
    return named;
}

[[noreturn]] void report(const Region& region, const unsigned char* address, Kind kind, Kind other_kind,
                         unsigned other, uint32_t other_block) {
    const host::Index3 &grid = launch.grid, &block = launch.block;
    host::fail(
        "%s %s, which thread (%u, %u, %u) of block (%u, %u, %u) has %s: a race, nothing orders the two",
        kDoes[kind], name_of(region, address).text, other % block.x, other / block.x % block.y,
        other / block.x / block.y, other_block % grid.x, other_block / grid.x % grid.y,
        other_block / grid.x / grid.y, kDone[other_kind]);
}

// A thread that has done this since the last barrier between it and the running one, or kNobody.
unsigned rival(const Accesses& accesses) {
    const unsigned warp = running / 32, lane = running % 32;
    if (accesses.epoch != epoch) return kNobody;
    if (accesses.warp != warp)
        return accesses.warp * 32u + static_cast<unsigned>(__builtin_ctz(accesses.lanes));
    const uint32_t others = accesses.warp_epoch == warp_epoch[warp] ? accesses.lanes & ~(1u << lane) : 0;
    if (others) return warp * 32u + static_cast<unsigned>(__builtin_ctz(others));
    return accesses.other;
}

void add_running(Accesses& accesses) {
    const unsigned warp = running / 32, lane = running % 32;
    if (accesses.epoch != epoch) {
        accesses = {epoch, warp_epoch[warp], 1u << lane, static_cast<uint16_t>(warp), kNobody};
    } else if (accesses.warp != warp) {
        if (accesses.other == kNobody) accesses.other = static_cast<uint16_t>(running);
    } else if (accesses.warp_epoch != warp_epoch[warp]) {
        accesses.warp_epoch = warp_epoch[warp];
        accesses.lanes = 1u << lane;
    } else {
        accesses.lanes |= 1u << lane;
    }
}

void across_blocks(Byte& byte, const Region& region, const unsigned char* address, Kind kind) {
    if (byte.launch != launch_number) {
        byte.launch = launch_number;
        byte.block = block_number;
        byte.now = byte.before = 0;
    } else if (byte.block != block_number) {
        for (unsigned k = 0; k < kKinds; ++k)
            if (byte.now & bit(k)) {
                byte.before_block[k] = byte.block;
                byte.before_thread[k] = byte.now_thread[k];
            }
        byte.before |= byte.now;
        byte.now = 0;
        byte.block = block_number;
    }
    if (const unsigned rivals = byte.before & kRivals[kind]) {
        const unsigned k = static_cast<unsigned>(__builtin_ctz(rivals));
        report(region, address, kind, static_cast<Kind>(k), byte.before_thread[k], byte.before_block[k]);
    }
    byte.now |= static_cast<uint8_t>(bit(kind));
    byte.now_thread[kind] = static_cast<uint16_t>(running);
}

void accessed(const void* where, size_t size, Kind kind) {
    const auto begin = static_cast<const unsigned char*>(where);
    const Region* const region = region_of(begin);
    if (!region || begin < region->begin || begin + size > region->begin + region->bytes) return;
    const unsigned warp = running / 32, lane = running % 32;
    for (const unsigned char* at = begin; at < begin + size; ++at) {
        Byte& byte = region->known[at - region->begin];
        Accesses& own = byte.of[kind];
        // Known already, and whoever came in between has been held against it.
        if (own.epoch == epoch && own.warp == warp && own.warp_epoch == warp_epoch[warp] &&
            (own.lanes >> lane & 1u))
            continue;
        if (!region->shared) across_blocks(byte, *region, at, kind);
        for (unsigned k = 0; k < kKinds; ++k) {
            if (!(kRivals[kind] & bit(k))) continue;
            const unsigned other = rival(byte.of[k]);
            if (other != kNobody) report(*region, at, kind, static_cast<Kind>(k), other, block_number);
        }
        add_running(own);
    }
}

}  // namespace

void add(const unsigned char* begin, size_t bytes, bool shared) {
    Byte* const known = static_cast<Byte*>(std::calloc(bytes + 1, sizeof(Byte)));
    if (!known) std::abort();
    regions[begin] = {begin, bytes, shared, known};
    clear_found();
}

void remove(const unsigned char* begin) {
    const auto gone = regions.find(begin);
    if (gone == regions.end()) return;
    std::free(gone->second.known);
    regions.erase(gone);
    clear_found();
}

void begin_launch(const char* kinds, void** arguments, host::Index3 grid, host::Index3 block) {
    launch.kinds = kinds;
    launch.arguments = arguments;
    launch.grid = grid;
    launch.block = block;
    ++launch_number;
}

void begin_block(size_t number) {
    block_number = static_cast<uint32_t>(number);
    ++epoch;
}

void shared_begins(const unsigned char* begin) { launch.shared_begin = begin; }

void go_on(unsigned thread) { running = thread; }

void order_block() { ++epoch; }

void order_warp(unsigned warp, unsigned mask) {
    if (mask != 0xffffffffu)
        host::fail("a __syncwarp of the lanes %08x: races are looked for with barriers of whole warps only",
                   mask);
    ++warp_epoch[warp];
}

}  // namespace races

// An atomic operation of the kernels (host_cuda.h).
void host::changed_atomically(const void* where, size_t size) {
    races::accessed(where, size, races::kStrongWrite);
}

// ------------------------------------------------------------------------ what the instrumented kernels call

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}

#define INREACH_ACCESSES(size)                                                                   \
    void __tsan_read##size(void* at) { races::accessed(at, size, races::kRead); }                \
    void __tsan_write##size(void* at) { races::accessed(at, size, races::kWrite); }              \
    void __tsan_volatile_read##size(void* at) { races::accessed(at, size, races::kStrongRead); } \
    void __tsan_volatile_write##size(void* at) { races::accessed(at, size, races::kStrongWrite); }
INREACH_ACCESSES(1)
INREACH_ACCESSES(2)
INREACH_ACCESSES(4)
INREACH_ACCESSES(8)
INREACH_ACCESSES(16)
#undef INREACH_ACCESSES

// Of any alignment: the kernels' own are checked by another sanitizer. Structures are copied as ranges.
#define INREACH_ACCESSES(size)                                                                             \
    void __tsan_unaligned_read##size(void* at) { races::accessed(at, size, races::kRead); }                \
    void __tsan_unaligned_write##size(void* at) { races::accessed(at, size, races::kWrite); }              \
    void __tsan_unaligned_volatile_read##size(void* at) { races::accessed(at, size, races::kStrongRead); } \
    void __tsan_unaligned_volatile_write##size(void* at) { races::accessed(at, size, races::kStrongWrite); }
INREACH_ACCESSES(2)
INREACH_ACCESSES(4)
INREACH_ACCESSES(8)
INREACH_ACCESSES(16)
#undef INREACH_ACCESSES

void __tsan_read_range(void* at, size_t size) { races::accessed(at, size, races::kRead); }
void __tsan_write_range(void* at, size_t size) { races::accessed(at, size, races::kWrite); }

}  // extern "C"
