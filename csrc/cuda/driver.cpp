#include "driver.h"

#include <dlfcn.h>

#include <mutex>

// The kernels for all architectures of this build (nvcc --fatbin), placed here by CMake.
extern "C" const unsigned char inreach_kernels_fatbin[];

namespace inreach {
namespace cuda {
namespace {

// The driver's types, as its documentation gives them: handles are pointers, device addresses 64-bit
// integers.
using Result = int;
using Address = unsigned long long;

struct Driver {
    Result (*init)(unsigned);
    Result (*driver_version)(int*);
    Result (*error_name)(Result, const char**);
    Result (*error_string)(Result, const char**);
    Result (*count)(int*);
    Result (*get)(int*, int);
    Result (*name)(char*, int, int);
    Result (*attribute)(int*, int, int);
    Result (*retain)(void**, int);
    Result (*release)(int);
    Result (*push)(void*);
    Result (*pop)(void**);
    Result (*memory_info)(size_t*, size_t*);
    Result (*allocate)(Address*, size_t);
    Result (*free)(Address);
    Result (*allocate_async)(Address*, size_t, void*);
    Result (*free_async)(Address, void*);
    Result (*to_device)(Address, const void*, size_t, void*);
    Result (*to_host)(void*, Address, size_t, void*);
    Result (*synchronize)(void*);
    Result (*load)(void**, const void*);
    Result (*unload)(void*);
    Result (*function)(void**, void*, const char*);
    Result (*launch)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*,
                     void**, void**);
};

template <class Function>
void find(void* library, const char* symbol, Function& function) {
    function = reinterpret_cast<Function>(dlsym(library, symbol));
    if (!function)
        throw DriverError(0, "SYMBOL_NOT_FOUND",
                          std::string("the NVIDIA driver is too old: it has no ") + symbol);
}

Driver open() {
    void* const library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        throw DriverError(0, "NO_DRIVER", "there is no NVIDIA driver on this machine (libcuda.so.1)");
    Driver d;
    find(library, "cuInit", d.init);
    find(library, "cuDriverGetVersion", d.driver_version);
    find(library, "cuGetErrorName", d.error_name);
    find(library, "cuGetErrorString", d.error_string);
    find(library, "cuDeviceGetCount", d.count);
    find(library, "cuDeviceGet", d.get);
    find(library, "cuDeviceGetName", d.name);
    find(library, "cuDeviceGetAttribute", d.attribute);
    find(library, "cuDevicePrimaryCtxRetain", d.retain);
    find(library, "cuDevicePrimaryCtxRelease_v2", d.release);
    find(library, "cuCtxPushCurrent_v2", d.push);
    find(library, "cuCtxPopCurrent_v2", d.pop);
    find(library, "cuMemGetInfo_v2", d.memory_info);
    find(library, "cuMemAlloc_v2", d.allocate);
    find(library, "cuMemFree_v2", d.free);
    find(library, "cuMemAllocAsync", d.allocate_async);
    find(library, "cuMemFreeAsync", d.free_async);
    find(library, "cuMemcpyHtoDAsync_v2", d.to_device);
    find(library, "cuMemcpyDtoHAsync_v2", d.to_host);
    find(library, "cuStreamSynchronize", d.synchronize);
    find(library, "cuModuleLoadData", d.load);
    find(library, "cuModuleUnload", d.unload);
    find(library, "cuModuleGetFunction", d.function);
    find(library, "cuLaunchKernel", d.launch);
    return d;
}

void check(const Driver& d, Result result, const char* what) {
    if (result == 0) return;
    const char *name = nullptr, *text = nullptr;
    d.error_name(result, &name);
    d.error_string(result, &text);
    throw DriverError(
        result, name ? name : "UNKNOWN",
        std::string(what) + ": " + (text ? text : "unknown error") + " (" + (name ? name : "?") + ")");
}

const Driver& driver() {
    static const Driver found = [] {
        const Driver d = open();
        check(d, d.init(0), "starting the NVIDIA driver");
        return d;
    }();
    return found;
}

}  // namespace

int device_count() {
    int count = 0;
    check(driver(), driver().count(&count), "counting devices");
    return count;
}

int driver_version() {
    int version = 0;
    check(driver(), driver().driver_version(&version), "the driver's version");
    return version;
}

// The device's context is the calling thread's for as long as this lives.
class Device::Current {
  public:
    explicit Current(void* context) {
        check(driver(), driver().push(context), "entering the device's context");
    }
    ~Current() {
        void* ignored = nullptr;
        driver().pop(&ignored);
    }
};

Device::Device(int ordinal) {
    const Driver& d = driver();
    check(d, d.get(&device_, ordinal), "choosing the device");
    check(d, d.retain(&context_, device_), "the device's context");
    try {
        const Current current(context_);
        check(d, d.load(&module_, inreach_kernels_fatbin), "loading the kernels");
        pools_ = attribute(115) != 0;
    } catch (...) {
        d.release(device_);
        throw;
    }
}

Device::~Device() {
    // At the end of a process the driver may be gone; nothing is left to do about errors.
    void* ignored = nullptr;
    if (driver().push(context_) == 0) {
        driver().unload(module_);
        driver().pop(&ignored);
    }
    driver().release(device_);
}

int Device::attribute(int which) const {
    int value = 0;
    check(driver(), driver().attribute(&value, which, device_), "an attribute of the device");
    return value;
}

std::string Device::name() const {
    char text[256] = {};
    check(driver(), driver().name(text, sizeof text, device_), "the device's name");
    return text;
}

size_t Device::free_bytes() const {
    const Current current(context_);
    size_t free = 0, total = 0;
    check(driver(), driver().memory_info(&free, &total), "free memory");
    return free;
}

uint64_t Device::allocate(size_t bytes, void* stream) const {
    const Current current(context_);
    Address address = 0;
    bytes = bytes ? bytes : 1;
    check(driver(),
          pools_ ? driver().allocate_async(&address, bytes, stream) : driver().allocate(&address, bytes),
          "allocating memory");
    return address;
}

void Device::release(uint64_t address, void* stream) const {
    const Current current(context_);
    check(driver(), pools_ ? driver().free_async(address, stream) : driver().free(address), "freeing memory");
}

void Device::upload(uint64_t target, const void* source, size_t bytes, void* stream) const {
    const Current current(context_);
    if (bytes) check(driver(), driver().to_device(target, source, bytes, stream), "copying to the device");
}

void Device::download(void* target, uint64_t source, size_t bytes, void* stream) const {
    const Current current(context_);
    if (bytes) check(driver(), driver().to_host(target, source, bytes, stream), "copying from the device");
    check(driver(), driver().synchronize(stream), "waiting for the device");
}

void Device::synchronize(void* stream) const {
    const Current current(context_);
    check(driver(), driver().synchronize(stream), "waiting for the device");
}

void Device::launch(const std::string& kernel, const unsigned (&grid)[3], unsigned block,
                    std::vector<uint64_t>& arguments, void* stream) const {
    const Current current(context_);
    void* function = nullptr;
    check(driver(), driver().function(&function, module_, kernel.c_str()), kernel.c_str());
    std::vector<void*> pointers;
    for (uint64_t& argument : arguments) pointers.push_back(&argument);
    check(driver(),
          driver().launch(function, grid[0], grid[1], grid[2], block, 1, 1, 0, stream, pointers.data(),
                          nullptr),
          kernel.c_str());
}

}  // namespace cuda
}  // namespace inreach
