// A CUDA driver whose GPUs are the host executor. It has the functions that csrc/cuda/launch/driver.h asks for, checks
// what a driver would check, and fails with any code where `fake_fail` says so.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include <dlfcn.h>

#define API extern "C" __attribute__((visibility("default")))

namespace {

constexpr int kInvalidValue = 1, kNotInitialised = 3, kNoDevice = 100, kInvalidDevice = 101, kInvalidContext = 201,
              kNotFound = 500, kLaunchFailed = 719;

struct Kernel {
    std::string name, kinds;
};

struct Executor {
    void* (*allocate)(std::size_t, int);
    int (*free)(void*);
    int (*launch)(const char*, const unsigned*, const unsigned*, void**, const char*, std::uint64_t, char*, std::size_t);
};

std::mutex the_mutex;
std::map<std::string, int> failures;
std::map<std::string, Kernel> kernels;
std::map<std::uint64_t, std::size_t> held;
Executor executor = {};
std::string last_message;
int gpus = 1, version = 13000, launches = 0, waits = 0;
bool page_locked = false, host_page_tables = false;
std::size_t used = 0, limit = std::size_t{1} << 32;
bool initialised = false;
thread_local int depth = 0;

int failure(const char* function) {
    const std::lock_guard<std::mutex> lock(the_mutex);
    const auto found = failures.find(function);
    return found == failures.end() ? 0 : found->second;
}

int refused(const char* function, bool needs_context) {
    if (const int code = failure(function)) return code;
    if (!initialised) return kNotInitialised;
    return needs_context && depth == 0 ? kInvalidContext : 0;
}

}  // namespace

#define REFUSE(context)                                       \
    if (const int code = refused(__func__, context)) return code

// ------------------------------------------------------------------------------------------- for the tests

API int fake_open(const char* library, int gpu_count, int driver_version) {
    void* const handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (!handle) return 1;
    executor.allocate = reinterpret_cast<decltype(executor.allocate)>(dlsym(handle, "host_allocate"));
    executor.free = reinterpret_cast<decltype(executor.free)>(dlsym(handle, "host_free"));
    executor.launch = reinterpret_cast<decltype(executor.launch)>(dlsym(handle, "host_launch"));
    gpus = gpu_count;
    version = driver_version;
    return executor.allocate && executor.free && executor.launch ? 0 : 1;
}
API void fake_fail(const char* function, int code) {
    const std::lock_guard<std::mutex> lock(the_mutex);
    if (code)
        failures[function] = code;
    else
        failures.erase(function);
}
API void fake_limit(std::size_t bytes) { limit = bytes; }
API std::size_t fake_used() { return used; }
API void fake_host_memory(bool locked, bool walked) {
    page_locked = locked;
    host_page_tables = walked;
}
API int fake_waits() { return waits; }
API int fake_launches() { return launches; }
API int fake_depth() { return depth; }
API const char* fake_message() { return last_message.c_str(); }

// ---------------------------------------------------------------------------------------------- the driver

API int cuInit(unsigned) {
    if (const int code = failure("cuInit")) return code;
    initialised = true;
    return 0;
}
API int cuDriverGetVersion(int* value) {
    *value = version;
    return failure("cuDriverGetVersion");
}
API int cuGetErrorName(int code, const char** name) {
    static thread_local char text[32];
    std::snprintf(text, sizeof text, "FAKE_ERROR_%d", code);
    *name = text;
    return 0;
}
API int cuDeviceGetCount(int* count) {
    REFUSE(false);
    *count = gpus;
    return 0;
}
API int cuDeviceGet(int* device, int ordinal) {
    REFUSE(false);
    if (ordinal < 0 || ordinal >= gpus) return gpus ? kInvalidDevice : kNoDevice;
    *device = ordinal;
    return 0;
}
API int cuDeviceGetName(char* name, int size, int device) {
    REFUSE(false);
    std::snprintf(name, static_cast<std::size_t>(size), "fake GPU %d", device);
    return 0;
}
API int cuDeviceGetAttribute(int* value, int attribute, int) {
    REFUSE(false);
    *value = attribute == 16 ? 2 : attribute == 75 ? 9 : attribute == 100 ? host_page_tables : 0;
    return 0;
}
API int cuDevicePrimaryCtxRetain(void** context, int device) {
    REFUSE(false);
    *context = reinterpret_cast<void*>(static_cast<std::uintptr_t>(device) + 1);
    return 0;
}
API int cuDevicePrimaryCtxRelease_v2(int) { return 0; }
API int cuCtxPushCurrent_v2(void* context) {
    REFUSE(false);
    if (!context) return kInvalidContext;
    ++depth;
    return 0;
}
API int cuCtxPopCurrent_v2(void** context) {
    if (depth == 0) return kInvalidContext;
    --depth;
    *context = nullptr;
    return 0;
}
API int cuMemGetInfo_v2(std::size_t* free, std::size_t* total) {
    REFUSE(true);
    *free = limit > used ? limit - used : 0;
    *total = limit;
    return 0;
}
API int cuModuleLoadData(void** module, const void* image) {
    REFUSE(true);
    if (!image || std::memcmp(image, "FAKE", 4) != 0) return 200;
    *module = &executor;
    return 0;
}
API int cuModuleGetFunction(void** function, void* module, const char* name) {
    REFUSE(true);
    if (module != &executor) return kInvalidValue;
    const std::lock_guard<std::mutex> lock(the_mutex);
    const auto known = kernels.find(name);
    if (known != kernels.end()) {
        *function = &known->second;
        return 0;
    }
    // The executor tells what a kernel takes when it is given something else.
    const unsigned one[3] = {1, 1, 1}, warp[3] = {32, 1, 1};
    char message[512] = {}, kinds[256] = {};
    executor.launch(name, one, warp, nullptr, "?", 0, message, sizeof message);
    const std::string begin = std::string(name) + ": takes ";
    if (std::strncmp(message, begin.c_str(), begin.size()) != 0) return kNotFound;
    std::sscanf(message + begin.size(), "%255[^,]", kinds);
    *function = &(kernels[name] = Kernel{name, kinds});
    return 0;
}
API int cuMemAlloc_v2(std::uint64_t* address, std::size_t bytes) {
    REFUSE(true);
    if (bytes == 0) return kInvalidValue;
    if (used + bytes > limit) return 2;
    void* const begin = executor.allocate(bytes, 1);
    if (!begin) return 2;
    *address = reinterpret_cast<std::uint64_t>(begin);
    const std::lock_guard<std::mutex> lock(the_mutex);
    held[*address] = bytes;
    used += bytes;
    return 0;
}
API int cuMemFree_v2(std::uint64_t address) {
    REFUSE(true);
    {
        const std::lock_guard<std::mutex> lock(the_mutex);
        const auto found = held.find(address);
        if (found == held.end()) return kInvalidValue;
        used -= found->second;
        held.erase(found);
    }
    return executor.free(reinterpret_cast<void*>(address)) ? kLaunchFailed : 0;
}
API int cuMemcpyHtoDAsync_v2(std::uint64_t to, const void* from, std::size_t bytes, void*) {
    REFUSE(true);
    std::memcpy(reinterpret_cast<void*>(to), from, bytes);
    return 0;
}
API int cuMemcpyDtoHAsync_v2(void* to, std::uint64_t from, std::size_t bytes, void*) {
    REFUSE(true);
    std::memcpy(to, reinterpret_cast<const void*>(from), bytes);
    return 0;
}
API int cuPointerGetAttribute(void* value, int, std::uint64_t) {
    if (!page_locked) return kInvalidValue;  // ordinary memory
    *static_cast<unsigned*>(value) = 1;
    return 0;
}
API int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                       unsigned, void*, void** arguments, void**) {
    REFUSE(true);
    const Kernel& kernel = *static_cast<const Kernel*>(function);
    const unsigned grid[3] = {gx, gy, gz}, block[3] = {bx, by, bz};
    char message[512] = {};
    ++launches;
    if (executor.launch(kernel.name.c_str(), grid, block, arguments, kernel.kinds.c_str(), 3, message, sizeof message)) {
        last_message = message;
        return kLaunchFailed;
    }
    return 0;
}
API int cuStreamSynchronize(void*) {
    REFUSE(true);
    ++waits;
    return 0;
}
