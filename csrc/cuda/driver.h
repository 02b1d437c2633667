// The part of the CUDA driver that the engine needs, found at run time: an extension that is linked to
// nothing can be imported, and say what is missing, on machines without a driver.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace inreach {
namespace cuda {

// A call of the driver that failed; `code` is CUresult, 0 where there is no driver at all.
class DriverError : public std::runtime_error {
  public:
    DriverError(int code, const std::string& name, const std::string& what)
        : std::runtime_error(what), code(code), name(name) {}
    int code;
    std::string name;
};

// Number of devices; 0 where the driver sees none. Throws DriverError where there is no (usable) driver.
int device_count();

// Such as 13000 for CUDA 13.0: the newest that the driver knows.
int driver_version();

// One card: its primary context (which torch and CuPy use as well, so that pointers and streams are shared)
// and the kernels, loaded for its architecture. All work goes to the stream given, in order.
class Device {
  public:
    explicit Device(int ordinal);
    ~Device();
    Device(const Device&) = delete;
    Device& operator=(const Device&) = delete;

    std::string name() const;
    int capability_major() const { return attribute(75); }
    int capability_minor() const { return attribute(76); }
    int multiprocessors() const { return attribute(16); }
    size_t free_bytes() const;

    // Memory of a pool that grows, in the order of the stream, where the card has such pools.
    uint64_t allocate(size_t bytes, void* stream) const;
    void release(uint64_t address, void* stream) const;

    // The source may be changed once upload returns; download returns when the copy is there.
    void upload(uint64_t target, const void* source, size_t bytes, void* stream) const;
    void download(void* target, uint64_t source, size_t bytes, void* stream) const;
    void synchronize(void* stream) const;

    // `arguments`: 8 bytes each, the kernel's own size of them used. Sizes must be those that the kernel
    // declares.
    void launch(const std::string& kernel, const unsigned (&grid)[3], unsigned block,
                std::vector<uint64_t>& arguments, void* stream) const;

  private:
    class Current;
    int attribute(int which) const;

    int device_ = 0;
    void* context_ = nullptr;
    void* module_ = nullptr;
    bool pools_ = false;
};

}  // namespace cuda
}  // namespace inreach
