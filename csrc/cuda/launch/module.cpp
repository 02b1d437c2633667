// `inreach_fast._cuda`: GPUs, memory, copies and launches by name. Nothing is computed here;
// inreach_fast/kernels/gpu decides the order of launches.
#include <pybind11/pybind11.h>

#include <cstring>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "gpu.h"

namespace py = pybind11;

namespace inreach::cuda {

namespace {

Stream as_stream(std::uintptr_t stream) { return reinterpret_cast<Stream>(stream); }

std::unique_ptr<Gpu> make_gpu(int ordinal, const py::buffer& image) {
    const py::buffer_info bytes = image.request();
    const py::gil_scoped_release released;
    return std::make_unique<Gpu>(ordinal, bytes.ptr);
}

// Kernel arguments: addresses as Python's int, everything else as a NumPy scalar, whose bytes are taken as
// they are.
class Arguments {
  public:
    explicit Arguments(const py::sequence& given) : values_(given.size()), pointers_(given.size()) {
        for (std::size_t i = 0; i < values_.size(); ++i) {
            const py::object item = given[i];
            pointers_[i] = &values_[i];
            if (py::isinstance<py::int_>(item)) {
                values_[i] = item.cast<std::uint64_t>();
                continue;
            }
            const py::buffer_info info = py::reinterpret_borrow<py::buffer>(item).request();
            const py::ssize_t bytes = info.itemsize * info.size;
            if (bytes > static_cast<py::ssize_t>(sizeof(std::uint64_t)))
                throw py::value_error("argument " + std::to_string(i) + " is no single number");
            std::memcpy(&values_[i], info.ptr, static_cast<std::size_t>(bytes));
        }
    }
    const std::vector<void*>& pointers() const { return pointers_; }

  private:
    std::vector<std::uint64_t> values_;
    std::vector<void*> pointers_;
};

void copy_in(const Gpu& gpu, DeviceAddress to, const py::buffer& from, std::uintptr_t stream) {
    const py::buffer_info source = from.request();
    const py::gil_scoped_release released;
    gpu.copy_in(to, source.ptr, static_cast<std::size_t>(source.size * source.itemsize), as_stream(stream));
}

void copy_out(const Gpu& gpu, const py::buffer& to, DeviceAddress from, std::uintptr_t stream, bool wait) {
    const py::buffer_info target = to.request(/*writable=*/true);
    const py::gil_scoped_release released;
    gpu.copy_out(target.ptr, from, static_cast<std::size_t>(target.size * target.itemsize), as_stream(stream),
                 wait);
}

void launch(Gpu& gpu, const std::string& kernel, const std::tuple<unsigned, unsigned, unsigned>& grid,
            unsigned block, const py::sequence& arguments, std::uintptr_t stream) {
    const Arguments values(arguments);
    const unsigned extent[3] = {std::get<0>(grid), std::get<1>(grid), std::get<2>(grid)};
    const py::gil_scoped_release released;
    gpu.launch(kernel, extent, block, values.pointers(), as_stream(stream));
}

}  // namespace

}  // namespace inreach::cuda

PYBIND11_MODULE(_cuda, module, py::mod_gil_not_used()) {
    using namespace inreach::cuda;
    module.doc() = "CUDA GPUs for inreach_fast; private: use inreach_fast.kernels with backend=\"cuda\".";
    // The Python side turns it into the package's own errors, by code (kernels/gpu/devices/driver_errors.py).
    static PyObject* error_type =
        PyErr_NewException("inreach_fast._cuda.DriverError", PyExc_RuntimeError, nullptr);
    module.add_object("DriverError", error_type);
    py::register_local_exception_translator([](std::exception_ptr raised) {
        try {
            if (raised) std::rethrow_exception(raised);
        } catch (const DriverError& error) {
            const py::tuple arguments = py::make_tuple(error.code, error.name, error.call);
            PyErr_SetObject(error_type, arguments.ptr());
        }
    });
    module.def("device_count", &device_count, py::call_guard<py::gil_scoped_release>());
    module.def("driver_version", &driver_version, py::call_guard<py::gil_scoped_release>());
    py::class_<Gpu>(module, "Gpu")
        .def(py::init(&make_gpu), py::arg("ordinal"), py::arg("image"))
        .def_readonly("ordinal", &Gpu::ordinal)
        .def_readonly("name", &Gpu::name)
        .def_readonly("multiprocessors", &Gpu::multiprocessors)
        .def_property_readonly("compute_capability",
                               [](const Gpu& gpu) { return py::make_tuple(gpu.major, gpu.minor); })
        .def("allocate", &Gpu::allocate, py::arg("nbytes"), py::call_guard<py::gil_scoped_release>())
        .def("release", &Gpu::release, py::arg("address"), py::call_guard<py::gil_scoped_release>())
        .def("free_bytes", &Gpu::free_bytes, py::call_guard<py::gil_scoped_release>())
        .def("total_bytes", &Gpu::total_bytes, py::call_guard<py::gil_scoped_release>())
        .def("copy_in", &copy_in, py::arg("to"), py::arg("source"), py::arg("stream"))
        .def("copy_out", &copy_out, py::arg("to"), py::arg("source"), py::arg("stream"), py::arg("wait"))
        .def("launch", &launch, py::arg("kernel"), py::arg("grid"), py::arg("block"), py::arg("arguments"),
             py::arg("stream"))
        .def(
            "synchronize", [](const Gpu& gpu, std::uintptr_t stream) { gpu.synchronize(as_stream(stream)); },
            py::arg("stream"), py::call_guard<py::gil_scoped_release>());
}
