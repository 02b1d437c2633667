// Threads and instruction sets.
#include <pybind11/stl.h>

#include <exception>
#include <string>

#include "bindings.h"
#include "dispatch.h"
#include "engine/threads.h"
#include "inreach/interrupt.h"

namespace py = pybind11;

namespace inreach {
namespace {

// Python runs signal handlers on its main thread alone.
bool on_main_thread() {
    const py::object main_thread = py::module_::import("threading").attr("main_thread")();
    return py::cast<unsigned long>(main_thread.attr("ident")) == PyThread_get_thread_ident();
}

}  // namespace

void without_gil(const std::function<void()>& work) {
    std::exception_ptr raised;
    enum { kUnknown, kMain, kOther } thread = kUnknown;
    // Called with the GIL released, first after 50 ms: short operations pay nothing.
    const auto signal_raised = [&] {
        if (thread == kOther) return false;
        const py::gil_scoped_acquire gil;
        try {
            if (thread == kUnknown) thread = on_main_thread() ? kMain : kOther;
            if (thread == kMain && PyErr_CheckSignals() != 0) throw py::error_already_set();
        } catch (...) {
            raised = std::current_exception();
        }
        return raised != nullptr;
    };
    try {
        const py::gil_scoped_release release;
        const InterruptScope scope(signal_raised);
        work();
    } catch (const Interrupted&) {
        std::rethrow_exception(raised);
    }
}

void bind_runtime(py::module_& module) {
    // Whichever kernel is called first reads the variable, so the error must be the package's own from all.
    py::register_local_exception_translator([](std::exception_ptr raised) {
        try {
            if (raised) std::rethrow_exception(raised);
        } catch (const BadThreadCount& error) {
            const py::object type = py::module_::import("inreach_fast.errors").attr("ParameterError");
            py::set_error(type, error.what());
        }
    });
    module.def("num_threads", &num_threads);
    module.def("set_num_threads", &set_num_threads, py::arg("n"));
    module.def("limit_threads", &limit_threads, py::arg("n"));
    module.def("isa_levels", &isa_levels);
    module.def("isa", [] { return std::string(kernels().name); });
    module.def("set_isa", &set_isa, py::arg("name"));
}

}  // namespace inreach
