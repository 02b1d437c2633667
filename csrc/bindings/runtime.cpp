// Threads and instruction sets.
#include <pybind11/stl.h>

#include "bindings.h"
#include "dispatch.h"
#include "engine/threads.h"

namespace py = pybind11;

namespace inreach {

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
    module.def("isa_levels", &isa_levels);
    module.def("isa", [] { return std::string(kernels().name); });
    module.def("set_isa", &set_isa, py::arg("name"));
}

}  // namespace inreach
