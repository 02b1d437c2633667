// inreach_fast._cuda: the driver, seen from Python. What is launched in which order stands in
// inreach_fast/kernels/gpu.
#include <pybind11/pybind11.h>

#include <cstring>

#include "driver.h"

namespace py = pybind11;

namespace {

using inreach::cuda::Device;
using inreach::cuda::DriverError;

void* as_stream(uint64_t handle) { return reinterpret_cast<void*>(handle); }

py::buffer_info contiguous(const py::buffer& buffer) {
    py::buffer_info info = buffer.request();
    py::ssize_t expected = info.itemsize;
    for (py::ssize_t axis = info.ndim; axis-- > 0; expected *= info.shape[static_cast<size_t>(axis)])
        if (info.shape[static_cast<size_t>(axis)] > 1 && info.strides[static_cast<size_t>(axis)] != expected)
            throw std::invalid_argument("expected an array in C order");
    return info;
}

// 'p', 'U', 'I' 8 bytes; 'u', 'i' 4; 'd' and 'f' floating.
uint64_t packed(char kind, const py::handle& value) {
    uint64_t bits = 0;
    switch (kind) {
        case 'p':
        case 'U':
            return py::cast<uint64_t>(value);
        case 'I':
            return static_cast<uint64_t>(py::cast<int64_t>(value));
        case 'u':
            return py::cast<uint32_t>(value);
        case 'i':
            return static_cast<uint32_t>(py::cast<int32_t>(value));
        case 'd': {
            const double number = py::cast<double>(value);
            std::memcpy(&bits, &number, sizeof number);
            return bits;
        }
        case 'f': {
            const float number = static_cast<float>(py::cast<double>(value));
            std::memcpy(&bits, &number, sizeof number);
            return bits;
        }
        default:
            throw std::invalid_argument("unknown kind of argument");
    }
}

void launch(const Device& device, const std::string& kernel, const py::sequence& grid, unsigned block,
            const std::string& kinds, const py::sequence& values, uint64_t stream) {
    if (kinds.size() != values.size()) throw std::invalid_argument("as many kinds as arguments");
    unsigned extents[3] = {1, 1, 1};
    if (grid.size() > 3) throw std::invalid_argument("a grid has one to three extents");
    for (size_t i = 0; i < grid.size(); ++i) extents[i] = py::cast<unsigned>(grid[i]);
    std::vector<uint64_t> arguments;
    for (size_t i = 0; i < kinds.size(); ++i) arguments.push_back(packed(kinds[i], values[i]));
    device.launch(kernel, extents, block, arguments, as_stream(stream));
}

}  // namespace

PYBIND11_MODULE(_cuda, module, py::mod_gil_not_used()) {
    module.doc() = "CUDA kernels of inreach_fast and the driver; private: use inreach_fast.kernels.";
    static py::handle error = py::exception<DriverError>(module, "DriverError", PyExc_RuntimeError).release();
    py::register_exception_translator([](std::exception_ptr pointer) {
        try {
            if (pointer) std::rethrow_exception(pointer);
        } catch (const DriverError& caught) {
            py::object instance = error(caught.what());
            instance.attr("code") = caught.code;
            instance.attr("name") = caught.name;
            PyErr_SetObject(error.ptr(), instance.ptr());
        }
    });
    module.def("device_count", &inreach::cuda::device_count);
    module.def("driver_version", &inreach::cuda::driver_version);
    py::class_<Device>(module, "Device")
        .def(py::init<int>(), py::arg("ordinal"))
        .def_property_readonly("name", &Device::name)
        .def_property_readonly(
            "compute_capability",
            [](const Device& d) { return py::make_tuple(d.capability_major(), d.capability_minor()); })
        .def_property_readonly("multiprocessors", &Device::multiprocessors)
        .def("free_bytes", &Device::free_bytes)
        .def(
            "allocate",
            [](const Device& d, size_t bytes, uint64_t stream) {
                return d.allocate(bytes, as_stream(stream));
            },
            py::arg("nbytes"), py::arg("stream") = 0)
        .def(
            "release",
            [](const Device& d, uint64_t address, uint64_t stream) { d.release(address, as_stream(stream)); },
            py::arg("address"), py::arg("stream") = 0)
        .def(
            "upload",
            [](const Device& d, uint64_t address, const py::buffer& source, uint64_t stream) {
                const py::buffer_info info = contiguous(source);
                const py::gil_scoped_release release;
                d.upload(address, info.ptr, static_cast<size_t>(info.size * info.itemsize),
                         as_stream(stream));
            },
            py::arg("address"), py::arg("source"), py::arg("stream") = 0)
        .def(
            "download",
            [](const Device& d, const py::buffer& target, uint64_t address, uint64_t stream) {
                const py::buffer_info info = contiguous(target);
                if (info.readonly) throw std::invalid_argument("expected an array that can be written to");
                const py::gil_scoped_release release;
                d.download(info.ptr, address, static_cast<size_t>(info.size * info.itemsize),
                           as_stream(stream));
            },
            py::arg("target"), py::arg("address"), py::arg("stream") = 0)
        .def(
            "synchronize",
            [](const Device& d, uint64_t stream) {
                const py::gil_scoped_release release;
                d.synchronize(as_stream(stream));
            },
            py::arg("stream") = 0)
        .def("launch", &launch, py::arg("kernel"), py::arg("grid"), py::arg("block"), py::arg("kinds"),
             py::arg("values"), py::arg("stream") = 0);
}
