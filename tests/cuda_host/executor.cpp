// Runs CUDA kernels on the CPU, to find out whether they are right: blocks one after the other, a fibre for
// each thread, which runs until it meets others. Who goes on next is decided by a seed, so that a missing
// barrier shows as a wrong answer under some seed; shared memory starts as NaN, and so does every buffer;
// reading or writing outside of buffers and shared memory hits a guarded page; undefined behaviour traps. A
// second build looks for races (races.h). All of it ends the launch with a message that names kernel, block
// and thread.
#include <csetjmp>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "host_cuda.h"
#include "kernel_table.h"
#include "races.h"

namespace {

// ------------------------------------------------------------------------------------------------ fibres

enum class State { kReady, kAtBlock, kAtWarp, kDone };

struct Fibre {
    host::Place place;
    ucontext_t context;
    jmp_buf resume;
    bool begun = false;
    State state = State::kReady;
    unsigned number = 0;
    int line = 0;       // where it waits
    unsigned mask = 0;  // for whom
    const void* own = nullptr;
    size_t size = 0;
    void (*together)(void*) = nullptr;
    const unsigned char* received = nullptr;
};

constexpr size_t kStack = 128 << 10;
constexpr unsigned kMaxThreads = 1024;
constexpr unsigned kRing = 8;  // exchanges of a warp that are kept; nobody is two behind

struct Launch {
    const Kernel* kernel = nullptr;
    void** arguments = nullptr;
    unsigned threads = 0;
    uint64_t order = 0, random = 0;
    std::vector<unsigned> ready;
    unsigned at_block = 0, done = 0;
    std::string message;
};

std::mutex the_mutex;  // one launch at a time
Launch launch;
std::vector<Fibre*> fibres;
std::vector<unsigned char> slots;  // warps x kRing x 32 lanes
std::vector<unsigned> exchanges;   // of each warp
std::vector<unsigned> waiting;     // lanes of each warp that wait for others of it
Fibre* running = nullptr;
jmp_buf scheduler;
sigjmp_buf fault;
volatile sig_atomic_t fault_signal = 0;
void* volatile fault_address = nullptr;

unsigned char* shared_end = nullptr;
constexpr size_t kSharedLimit = 48 << 10;  // what every architecture has without asking
size_t shared_bytes = 0;

size_t page() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }
size_t to_pages(size_t bytes) { return (bytes + page() - 1) / page() * page(); }

// Pages with one on either side that may not be touched; the address of the first inner one.
unsigned char* guarded(size_t pages_bytes) {
    void* const all = mmap(nullptr, pages_bytes + 2 * page(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) return nullptr;
    unsigned char* const inner = static_cast<unsigned char*>(all) + page();
    if (mprotect(inner, pages_bytes, PROT_READ | PROT_WRITE) != 0) return nullptr;
    return inner;
}

void fibre_main() {
    for (;;) {
        launch.kernel->call(launch.kernel->function, launch.arguments);
        running->state = State::kDone;
        if (_setjmp(running->resume) == 0) _longjmp(scheduler, 1);
    }
}

void wait_here() {
    if (_setjmp(running->resume) == 0) _longjmp(scheduler, 1);
}

__attribute__((noinline)) void run(Fibre* fibre) {
    running = fibre;
    races::go_on(fibre->number);
    host::place = &fibre->place;
    if (_setjmp(scheduler) == 0) {
        if (fibre->begun) _longjmp(fibre->resume, 1);
        fibre->begun = true;
        setcontext(&fibre->context);
    }
}

// Order 0: threads from the first to the last; 1: from the last to the first; else by chance.
unsigned next_ready() {
    std::vector<unsigned>& ready = launch.ready;
    size_t chosen = ready.size() - 1;
    if (launch.order > 1) {
        launch.random ^= launch.random << 13, launch.random ^= launch.random >> 7,
            launch.random ^= launch.random << 17;
        chosen = launch.random % ready.size();
    }
    std::swap(ready[chosen], ready.back());
    const unsigned number = ready.back();
    ready.pop_back();
    return number;
}

void make_ready(unsigned number) {
    fibres[number]->state = State::kReady;
    launch.ready.push_back(number);
}

void release_block() {
    const int line = fibres[0]->line;
    for (unsigned i = 0; i < launch.threads; ++i)
        if (fibres[i]->line != line) {
            running = fibres[i];
            host::fail("waits at the __syncthreads of line %d, thread 0 at that of line %d", fibres[i]->line,
                       line);
        }
    races::order_block();
    launch.at_block = 0;
    if (launch.order == 1)
        for (unsigned i = 0; i < launch.threads; ++i) make_ready(i);
    else
        for (unsigned i = launch.threads; i-- > 0;) make_ready(i);
}

// Of the sizes that occur most the compiler makes a few instructions.
void copy_own(unsigned char* slot, const Fibre& fibre) {
    if (fibre.size == host::kSlot)
        std::memcpy(slot, fibre.own, host::kSlot);
    else if (fibre.size == 8)
        std::memcpy(slot, fibre.own, 8);
    else if (fibre.size)
        std::memcpy(slot, fibre.own, fibre.size);
}

unsigned lanes_of(unsigned mask) {
    return mask == 0xffffffffu ? 32u : static_cast<unsigned>(__builtin_popcount(mask));
}

// All lanes of the mask wait, for one another and at one place: they exchange what they brought and go on.
void release_warp(const Fibre& last) {
    const unsigned first = last.number / 32 * 32, warp = last.number / 32, mask = last.mask;
    if (++waiting[warp] < lanes_of(mask)) return;
    for (unsigned i = 0; i < 32; ++i) {
        if (!(mask >> i & 1u)) continue;
        if (first + i >= launch.threads)
            host::fail("the mask %08x names lanes that the block does not have", mask);
        const Fibre& other = *fibres[first + i];
        if (other.state != State::kAtWarp || other.mask != mask) return;  // it has to meet others first
        if (other.line != last.line || other.size != last.size)
            host::fail("waits for the lanes %08x at line %d, lane %u for the same at line %d", mask,
                       last.line, i, other.line);
    }
    if (last.size == 0) races::order_warp(warp, mask);  // __syncwarp
    unsigned char* const slot = slots.data() + (warp * kRing + exchanges[warp]++ % kRing) * 32 * host::kSlot;
    for (unsigned i = 32; i-- > 0;) {
        if (!(mask >> i & 1u)) continue;
        Fibre& other = *fibres[first + i];
        copy_own(slot + i * host::kSlot, other);
        other.received = slot;
        make_ready(first + i);
    }
    waiting[warp] -= lanes_of(mask);
    if (last.together) last.together(slot);
}

void run_block() {
    launch.ready.clear();
    launch.at_block = launch.done = 0;
    shared_bytes = 0;
    waiting.assign(launch.threads / 32, 0);
    for (unsigned i = 0; i < launch.threads; ++i) fibres[i]->state = State::kReady;
    if (launch.order == 1)
        for (unsigned i = 0; i < launch.threads; ++i) launch.ready.push_back(i);
    else
        for (unsigned i = launch.threads; i-- > 0;) launch.ready.push_back(i);
    while (!launch.ready.empty()) {
        Fibre* const fibre = fibres[next_ready()];
        run(fibre);
        switch (fibre->state) {
            case State::kAtBlock:
                if (++launch.at_block == launch.threads) release_block();
                break;
            case State::kAtWarp:
                release_warp(*fibre);
                break;
            case State::kDone:
                ++launch.done;
                break;
            case State::kReady:
                break;
        }
    }
    if (launch.done == launch.threads) return;
    for (unsigned i = 0; i < launch.threads; ++i) {
        running = fibres[i];
        if (running->state == State::kAtWarp)
            host::fail("waits for the lanes %08x at line %d, and not all of them come", running->mask,
                       running->line);
    }
    for (unsigned i = 0; i < launch.threads; ++i) {
        running = fibres[i];
        if (running->state == State::kAtBlock)
            host::fail("waits at the __syncthreads of line %d; %u of %u threads have ended", running->line,
                       launch.done, launch.threads);
    }
}

// ------------------------------------------------------------------------------------------------ memory

struct Buffer {
    unsigned char* pages;
    size_t pages_bytes, bytes;
};
std::map<unsigned char*, Buffer> buffers;  // by first byte

std::string place_of(const void* address) {
    const auto at = static_cast<const unsigned char*>(address);
    char text[128];
    if (shared_end && at >= shared_end && at < shared_end + page()) {
        std::snprintf(text, sizeof text, "%zu bytes past the end of shared memory",
                      static_cast<size_t>(at - shared_end));
        return text;
    }
    for (const auto& entry : buffers) {
        const Buffer& buffer = entry.second;
        const unsigned char *begin = entry.first, *end = begin + buffer.bytes;
        // By its own guarded pages: those of the next buffer may lie right behind them.
        if (at < buffer.pages - page() || at >= buffer.pages + buffer.pages_bytes + page()) continue;
        if (at >= end)
            std::snprintf(text, sizeof text, "%zu bytes past the end of a buffer of %zu bytes",
                          static_cast<size_t>(at - end), buffer.bytes);
        else
            std::snprintf(text, sizeof text, "%zu bytes before a buffer of %zu bytes",
                          static_cast<size_t>(begin - at), buffer.bytes);
        return text;
    }
    std::snprintf(text, sizeof text, "at %p, near no buffer", address);
    return text;
}

void on_signal(int number, siginfo_t* info, void*) {
    fault_signal = number;
    fault_address = info->si_addr;
    siglongjmp(fault, 1);
}

constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE};

// Faults inside a launch are caught; whoever handled them before does so again afterwards.
class Signals {
  public:
    Signals() : stack_(64 << 10) {
        stack_t own = {};
        own.ss_sp = stack_.data();
        own.ss_size = stack_.size();
        sigaltstack(&own, &old_stack_);
        struct sigaction action = {};
        action.sa_sigaction = on_signal;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        for (size_t i = 0; i < 5; ++i) sigaction(kSignals[i], &action, &old_[i]);
    }
    ~Signals() {
        for (size_t i = 0; i < 5; ++i) sigaction(kSignals[i], &old_[i], nullptr);
        sigaltstack(&old_stack_, nullptr);
    }

  private:
    std::vector<unsigned char> stack_;
    stack_t old_stack_ = {};
    struct sigaction old_[5];
};

bool make_fibres(unsigned threads) {
    while (fibres.size() < threads) {
        Fibre* const fibre = new Fibre;
        unsigned char* const stack = guarded(kStack);
        if (!stack) return false;
        getcontext(&fibre->context);
        fibre->context.uc_stack.ss_sp = stack;
        fibre->context.uc_stack.ss_size = kStack;
        fibre->context.uc_link = nullptr;
        fibre->number = static_cast<unsigned>(fibres.size());
        fibres.push_back(fibre);
    }
    for (unsigned i = 0; i < threads; ++i)
        if (!fibres[i]->begun) makecontext(&fibres[i]->context, fibre_main, 0);
    return true;
}

}  // namespace

namespace host {

Place* place = nullptr;

void* shared_memory(size_t bytes, size_t alignment) {
    if (bytes % alignment || bytes > kSharedLimit) fail("asks for %zu bytes of shared memory", bytes);
    if (shared_bytes == 0) {
        std::memset(shared_end - bytes, 0xff, bytes);
        shared_bytes = bytes;
        races::shared_begins(shared_end - bytes);
    }
    if (shared_bytes != bytes) fail("asks for shared memory twice");
    return shared_end - bytes;
}

void meet_block(int line) {
    running->line = line;
    running->state = State::kAtBlock;
    wait_here();
}

const unsigned char* meet_warp(unsigned mask, const void* own, size_t size, int line,
                               void (*together)(void*)) {
    const unsigned lane = running->number % 32;
    if (!(mask >> lane & 1u)) fail("lane %u calls with the mask %08x, which does not name it", lane, mask);
    running->mask = mask;
    running->own = own;
    running->size = size;
    running->together = together;
    running->line = line;
    running->state = State::kAtWarp;
    wait_here();
    return running->received;
}

void fail(const char* format, ...) {
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    launch.message = text;
    siglongjmp(fault, 1);
}

}  // namespace host

#define HOST_API extern "C" __attribute__((visibility("default")))

// Memory of `bytes`, filled with 0xff (NaN); its end, or else its beginning, at the edge of a guarded page.
HOST_API void* host_allocate(size_t bytes, int at_end) {
    const std::lock_guard<std::mutex> lock(the_mutex);
    const size_t pages_bytes = to_pages(bytes ? bytes : 1);
    unsigned char* const pages = guarded(pages_bytes);
    if (!pages) return nullptr;
    std::memset(pages, 0xff, pages_bytes);
    unsigned char* const begin = at_end ? pages + pages_bytes - bytes : pages;
    buffers[begin] = {pages, pages_bytes, bytes};
    races::add(begin, bytes, false);
    return begin;
}

// 0, or 1 where what lies beside the buffer on its last page has been written to.
HOST_API int host_free(void* begin) {
    const std::lock_guard<std::mutex> lock(the_mutex);
    const auto found = buffers.find(static_cast<unsigned char*>(begin));
    if (found == buffers.end()) return 2;
    const Buffer buffer = found->second;
    int spoilt = 0;
    for (unsigned char* at = buffer.pages; at < found->first; ++at) spoilt |= *at != 0xff;
    for (unsigned char* at = found->first + buffer.bytes; at < buffer.pages + buffer.pages_bytes; ++at)
        spoilt |= *at != 0xff;
    races::remove(found->first);
    munmap(buffer.pages - page(), buffer.pages_bytes + 2 * page());
    buffers.erase(found);
    return spoilt;
}

// 0, or 1 with a message. `kinds`: what the caller passes, one letter an argument (kind_of).
HOST_API int host_launch(const char* name, const unsigned* grid, const unsigned* block, void** arguments,
                         const char* kinds, uint64_t order, char* message, size_t message_size) {
    const std::lock_guard<std::mutex> lock(the_mutex);
    const Kernel* wanted = nullptr;
    for (size_t i = 0; i < kKernelCount; ++i)
        if (std::strcmp(kKernels[i].name, name) == 0) wanted = &kKernels[i];
    if (!wanted) {
        std::snprintf(message, message_size, "%s: no such kernel", name);
        return 1;
    }
    if (std::strcmp(wanted->kinds, kinds) != 0) {
        std::snprintf(message, message_size, "%s: takes %s, was given %s", name, wanted->kinds, kinds);
        return 1;
    }
    const unsigned threads = block[0] * block[1] * block[2];
    const bool sizes_good = threads > 0 && threads <= kMaxThreads && threads % 32 == 0 && grid[0] &&
                            grid[1] && grid[2] && grid[0] <= 0x7fffffffu && grid[1] <= 65535 &&
                            grid[2] <= 65535;
    if (!sizes_good) {
        std::snprintf(message, message_size, "%s: grid (%u, %u, %u) of blocks of (%u, %u, %u)", name, grid[0],
                      grid[1], grid[2], block[0], block[1], block[2]);
        return 1;
    }
    if (!shared_end) {
        unsigned char* const pages = guarded(to_pages(kSharedLimit));
        if (pages) {
            shared_end = pages + to_pages(kSharedLimit);
            races::add(pages, to_pages(kSharedLimit), true);
        }
    }
    if (!shared_end || !make_fibres(threads)) {
        std::snprintf(message, message_size, "%s: no memory for fibres", name);
        return 1;
    }
    launch.kernel = wanted;
    launch.arguments = arguments;
    launch.threads = threads;
    launch.order = order;
    launch.random = order * 0x9e3779b97f4a7c15ull + 1;
    launch.message.clear();
    slots.resize(threads / 32 * kRing * 32 * host::kSlot);
    exchanges.assign(threads / 32, 0);
    races::begin_launch(kinds, arguments, {grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]});
    const uint64_t blocks = uint64_t{grid[0]} * grid[1] * grid[2];
    // A stride that meets every block once: any that has no factor in common with their number.
    uint64_t stride = 1, first = 0;
    if (order == 1) stride = blocks - 1, first = blocks - 1;
    if (order > 1) {
        const auto common = [](uint64_t a, uint64_t b) {
            while (b) a %= b, std::swap(a, b);
            return a;
        };
        stride = order * 2654435761u % blocks;
        while (common(stride, blocks) != 1) ++stride;
        first = order * 40503u % blocks;
    }
    volatile int failed = 0;
    {
        const Signals signals;
        fault_signal = 0;
        if (sigsetjmp(fault, 1) == 0) {
            uint64_t number = first;
            for (uint64_t b = 0; b < blocks; ++b, number = (number + stride) % blocks) {
                const host::Index3 at = {static_cast<unsigned>(number % grid[0]),
                                         static_cast<unsigned>(number / grid[0] % grid[1]),
                                         static_cast<unsigned>(number / grid[0] / grid[1])};
                for (unsigned i = 0; i < threads; ++i)
                    fibres[i]->place = {{i % block[0], i / block[0] % block[1], i / block[0] / block[1]},
                                        at,
                                        {grid[0], grid[1], grid[2]},
                                        {block[0], block[1], block[2]}};
                races::begin_block(number);
                run_block();
            }
        } else {
            failed = 1;
        }
    }
    if (!failed) return 0;
    const host::Place at = running->place;
    std::string what = launch.message;
    if (fault_signal == SIGSEGV || fault_signal == SIGBUS)
        what = "reads or writes " + place_of(fault_address);
    else if (fault_signal)
        what = "undefined behaviour (an index out of range, a shift, an alignment, an overflow)";
    std::snprintf(message, message_size, "%s: thread (%u, %u, %u) of block (%u, %u, %u) %s", name,
                  at.thread.x, at.thread.y, at.thread.z, at.block.x, at.block.y, at.block.z, what.c_str());
    for (Fibre* fibre : fibres) fibre->begun = false;  // their stacks hold a launch that will not go on
    return 1;
}
