// Threads and instruction sets.
#include <pybind11/stl.h>

#include "bindings.h"
#include "dispatch.h"
#include "engine/threads.h"

namespace py = pybind11;

namespace inreach {

void bind_runtime(py::module_& module) {
    module.def("num_threads", &num_threads);
    module.def("set_num_threads", &set_num_threads, py::arg("n"));
    module.def("isa_levels", &isa_levels);
    module.def("isa", [] { return std::string(kernels().name); });
    module.def("set_isa", &set_isa, py::arg("name"));
}

}  // namespace inreach
