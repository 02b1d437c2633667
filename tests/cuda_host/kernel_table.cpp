// The kernels, compiled for the host executor.
#include <type_traits>
#include <utility>

#include "host_cuda.h"
// After what it stands on.
#include "all.cuh"
#include "kernel_table.h"

namespace {

// 'p' pointer, 'i' and 'I' signed of 4 and 8 bytes, 'u' and 'U' unsigned, 'f' and 'd' floating.
template <class T>
constexpr char kind_of() {
    if (std::is_pointer<T>::value) return 'p';
    if (std::is_floating_point<T>::value) return sizeof(T) == 4 ? 'f' : 'd';
    if (std::is_signed<T>::value) return sizeof(T) == 4 ? 'i' : 'I';
    return sizeof(T) == 4 ? 'u' : 'U';
}

template <class... A>
struct Kinds {
    static constexpr char text[] = {kind_of<A>()..., '\0'};
};

template <class... A, size_t... I>
void call_with(void* function, void** arguments, std::index_sequence<I...>) {
    reinterpret_cast<void (*)(A...)>(function)(*static_cast<A*>(arguments[I])...);
}

template <class... A>
Kernel kernel(const char* name, void (*function)(A...)) {
    return {name, Kinds<A...>::text, reinterpret_cast<void*>(function),
            [](void* f, void** a) { call_with<A...>(f, a, std::index_sequence_for<A...>()); }};
}

}  // namespace

const Kernel kKernels[] = {
#include "kernel_list.inc"
};
const size_t kKernelCount = sizeof kKernels / sizeof kKernels[0];
