#include "inreach/convolution.h"

#include <pybind11/stl.h>

#include <memory>
#include <optional>

#include "bindings.h"
#include "engine/require.h"
#include "kernels.h"

namespace py = pybind11;

namespace inreach {
namespace {

using Floats = py::array_t<float, py::array::c_style>;

size_t size_of(const Floats& array, int axis) { return static_cast<size_t>(array.shape(axis)); }

std::unique_ptr<Convolution> make(const Floats& weight, const Floats& bias, int tile) {
    require(weight.ndim() == 4 && weight.shape(2) == 3 && weight.shape(3) == 3 && bias.ndim() == 1 &&
                bias.shape(0) == weight.shape(0),
            "Convolution: shapes do not fit");
    std::unique_ptr<Convolution> made;
    without_gil([&] {
        made = std::make_unique<Convolution>(weight.data(), bias.data(), size_of(weight, 1),
                                             size_of(weight, 0), tile);
    });
    return made;
}

Floats apply(const Convolution& convolution, const Floats& images, size_t pad_y, size_t pad_x,
             const std::optional<Floats>& other, int activation, int threads, uintptr_t team) {
    require(images.ndim() == 4 && size_of(images, 3) == convolution.inputs() && pad_y < (1u << 20) &&
                pad_x < (1u << 20) && size_of(images, 1) + 2 * pad_y >= 3 &&
                size_of(images, 2) + 2 * pad_x >= 3,
            "Convolution: shapes do not fit");
    require(0 <= activation && activation <= 2, "Convolution: no such activation");
    const size_t height = size_of(images, 1) + 2 * pad_y - 2, width = size_of(images, 2) + 2 * pad_x - 2;
    Floats out({size_of(images, 0), height, width, convolution.outputs()});
    if (other) {
        bool same = other->ndim() == 4;
        for (int axis = 0; same && axis < 4; ++axis) same = other->shape(axis) == out.shape(axis);
        require(same, "Convolution: shapes do not fit");
    }
    float* const written = out.mutable_data();
    without_gil([&] {
        convolution({images.data(), size_of(images, 0), size_of(images, 1), size_of(images, 2)}, pad_y, pad_x,
                    other ? other->data() : nullptr, static_cast<Activation>(activation),
                    {threads, reinterpret_cast<decltype(Team::run)>(team)}, written);
    });
    return out;
}

}  // namespace

void bind_convolution(py::module_& module) {
    module.def("winograd_tile", &winograd_tile);
    py::class_<Convolution>(module, "Convolution").def(py::init(&make)).def("__call__", &apply);
}

}  // namespace inreach
