#include "inreach/linear_map.h"

#include "bindings.h"
#include "engine/require.h"

namespace py = pybind11;

namespace inreach {

void bind_linear_map(py::module_& module) {
    using Floats = py::array_t<float, py::array::c_style>;
    module.def("linear_map", [](const Floats& rows, const Floats& mean, const Floats& matrix) {
        require(rows.ndim() == 2 && mean.ndim() == 1 && matrix.ndim() == 2 &&
                    mean.shape(0) == rows.shape(1) && matrix.shape(0) == rows.shape(1),
                "linear_map: shapes do not fit");
        const auto count = static_cast<size_t>(rows.shape(0)), dim = static_cast<size_t>(rows.shape(1));
        const auto outputs = static_cast<size_t>(matrix.shape(1));
        py::array_t<float> out({count, outputs});
        float* const written = out.mutable_data();
        without_gil(
            [&] { linear_map(rows.data(), count, dim, mean.data(), matrix.data(), outputs, written); });
        return out;
    });
}

}  // namespace inreach
