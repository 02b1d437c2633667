// Everything that the engine asks of the operating system: Linux, other POSIX systems, Windows (MinGW-w64).
#pragma once

#include <cstddef>

namespace inreach {

// `bytes` is a multiple of `alignment`, a power of two. Null where there is no memory. Freed by free_aligned.
void* allocate_aligned(size_t alignment, size_t bytes);
void free_aligned(void* memory);

// Asks for large pages (2 MiB on x86-64), where the system has them.
constexpr size_t kLargePage = size_t{1} << 21;
void prefer_large_pages(void* memory, size_t bytes);

// Releases the physical pages of a shared file mapping; they are read again when touched. Other memory would
// lose its contents. Only whole pages are released. Does nothing on Windows.
void release_mapped_pages(const void* data, size_t bytes);

// Bytes of files that are resident in this process; 0 where the system does not say (all but Linux).
size_t resident_file_bytes();

long process_id();

// In a loop that waits for another thread: lets the core's other thread run, and saves power.
inline void pause_processor() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Processors that this process may run on, at least 1.
int usable_processors();

}  // namespace inreach
