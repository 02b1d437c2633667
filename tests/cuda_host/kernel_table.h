// Every kernel by name, with a way to call it: what executor.cpp knows of kernel_table.cpp, which alone
// includes the kernels, so that these can be compiled in their own way.
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
