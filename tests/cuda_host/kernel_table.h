// Every kernel by name, with a way to call it: what executor.cpp knows of kernel_table.cpp, which alone
// includes the kernels. Where races are looked for that file is compiled with instrumentation and the
// executor is not; so nothing of the standard library's that both would define may stand here.
#pragma once

#include <cstddef>

struct Kernel {
    const char* name;
    const char* kinds;  // of its arguments, one letter each (kernel_table.cpp, kind_of)
    void* function;
    void (*call)(void* function, void** arguments);
};

extern const Kernel kKernels[];
extern const size_t kKernelCount;
