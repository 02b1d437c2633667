#include "inreach/smooth.h"

#include "bindings.h"
#include "engine/require.h"

namespace py = pybind11;

namespace inreach {
namespace {

using Doubles = py::array_t<double, py::array::c_style>;
using Numbers = py::array_t<int32_t, py::array::c_style>;

Band band(const Numbers& low, const Numbers& high, const Doubles& weights, py::ssize_t cells) {
    require(low.ndim() == 1 && high.ndim() == 1 && low.size() == cells && high.size() == cells,
            "smooth: a band has as many cells as the scores");
    int64_t count = 0;
    for (py::ssize_t c = 0; c < cells; ++c) count += static_cast<int64_t>(high.at(c)) - low.at(c);
    require(weights.ndim() == 1 && weights.size() == count, "smooth: a band has a weight for each output");
    return {static_cast<size_t>(cells), low.data(), high.data(), weights.data()};
}

}  // namespace

void bind_smooth(py::module_& module) {
    module.def("smooth", [](const Doubles& scores, const Numbers& low, const Numbers& high,
                            const Doubles& weights, const Numbers& left, const Numbers& right,
                            const Doubles& across, size_t height, size_t width) {
        require(scores.ndim() == 2, "smooth: expected scores of two dimensions");
        const Band rows = band(low, high, weights, scores.shape(0)),
                   columns = band(left, right, across, scores.shape(1));
        py::array_t<float> out({height, width});
        float* const written = out.mutable_data();
        without_gil([&] { smooth(scores.data(), rows, columns, height, width, written); });
        return out;
    });
}

}  // namespace inreach
