#include "inreach/describe.h"

#include <stdexcept>
#include <vector>

#include "bindings.h"

namespace py = pybind11;

namespace inreach {
namespace {

// kernels/describing.py has made these arrays; these checks keep any other caller from reading outside of
// them.
using Floats = py::array_t<float, py::array::c_style>;
using Ints = py::array_t<int32_t, py::array::c_style>;
using Longs = py::array_t<int64_t, py::array::c_style>;

void require(bool condition) {
    if (!condition) throw std::invalid_argument("describe: inconsistent plan");
}

// The object itself, without a conversion whose temporary array would be gone before it is read.
template <typename Array>
Array exactly(const py::handle& object) {
    require(py::isinstance<Array>(object));
    return py::reinterpret_borrow<Array>(object);
}

ptrdiff_t float_stride(const py::array& array, int axis) {
    const py::ssize_t bytes = array.strides(axis);
    require(bytes % static_cast<py::ssize_t>(sizeof(float)) == 0);
    return bytes / static_cast<py::ssize_t>(sizeof(float));
}

AxisResample axis_resample(const py::handle& object, size_t source, size_t target) {
    const py::tuple parts = py::cast<py::tuple>(object);
    require(parts.size() == 3);
    const auto i0 = exactly<Ints>(parts[0]);
    const auto w0 = exactly<Floats>(parts[1]), w1 = exactly<Floats>(parts[2]);
    const auto n = static_cast<py::ssize_t>(target);
    require(i0.size() == n && w0.size() == n && w1.size() == n);
    for (size_t i = 0; i < target; ++i) {
        const int64_t last = int64_t{i0.data()[i]} + (w1.data()[i] != 0.0f ? 1 : 0);
        require(i0.data()[i] >= 0 && last < static_cast<int64_t>(source));
    }
    return {i0.data(), w0.data(), w1.data()};
}

// (data (B,C,h,w), first_output, feature_begin, tap_begin, weights, (i0, w0, w1) of rows, the same of
// columns)
DescribeLevel level_of(const py::tuple& parts, size_t neighbourhood, size_t grid_height, size_t grid_width) {
    require(parts.size() == 7);
    const py::array data = exactly<py::array_t<float>>(parts[0]);
    require(data.ndim() == 4);
    const auto feature_begin = exactly<Longs>(parts[2]), tap_begin = exactly<Longs>(parts[3]);
    const auto weight = exactly<Floats>(parts[4]);
    DescribeLevel level;
    level.data = static_cast<const float*>(data.data());
    level.channels = static_cast<size_t>(data.shape(1));
    level.height = static_cast<size_t>(data.shape(2));
    level.width = static_cast<size_t>(data.shape(3));
    level.batch_stride = float_stride(data, 0);
    level.channel_stride = float_stride(data, 1);
    level.row_stride = float_stride(data, 2);
    level.column_stride = float_stride(data, 3);
    level.first_output = py::cast<size_t>(parts[1]);
    level.outputs = static_cast<size_t>(feature_begin.size());
    level.feature_begin = feature_begin.data();
    level.tap_begin = tap_begin.data();
    level.weight = weight.data();
    require(tap_begin.size() == feature_begin.size() + 1 && level.outputs > 0 && level.tap_begin[0] == 0);
    const int64_t features = static_cast<int64_t>(level.channels * neighbourhood * neighbourhood);
    for (size_t j = 0; j < level.outputs; ++j) {
        const int64_t taps = level.tap_begin[j + 1] - level.tap_begin[j];
        require(taps > 0 && level.feature_begin[j] >= 0 && level.feature_begin[j] + taps <= features);
    }
    require(weight.size() == level.tap_begin[level.outputs]);
    level.rows = axis_resample(parts[5], level.height, grid_height);
    level.columns = axis_resample(parts[6], level.width, grid_width);
    return level;
}

}  // namespace

void bind_describe(py::module_& module) {
    module.def("describe", [](const py::list& parts, size_t neighbourhood, size_t grid_height,
                              size_t grid_width, py::array out) {
        require(out.ndim() == 3 && py::isinstance<py::array_t<float>>(out) && out.writeable());
        const size_t batch = static_cast<size_t>(out.shape(0)), dim = static_cast<size_t>(out.shape(2));
        require(neighbourhood % 2 == 1 && neighbourhood < 65536 && grid_height > 0 && grid_width > 0 &&
                dim > 0);
        require(static_cast<size_t>(out.shape(1)) == grid_height * grid_width);
        require(dim == 1 || float_stride(out, 2) == 1);
        std::vector<DescribeLevel> levels;
        size_t covered = 0, previous = 0;
        for (const py::handle& item : parts) {
            const py::tuple tuple = py::cast<py::tuple>(item);
            levels.push_back(level_of(tuple, neighbourhood, grid_height, grid_width));
            const DescribeLevel& level = levels.back();
            require(static_cast<size_t>(py::cast<py::array>(tuple[0]).shape(0)) == batch);
            require(level.first_output >= previous && level.first_output <= covered);
            require(level.first_output + level.outputs >= covered &&
                    level.first_output + level.outputs <= dim);
            previous = level.first_output;
            covered = level.first_output + level.outputs;
        }
        require(covered == dim);
        float* const data = static_cast<float*>(out.mutable_data());
        const ptrdiff_t batch_stride = float_stride(out, 0), row_stride = float_stride(out, 1);
        without_gil([&] {
            describe(levels.data(), levels.size(), batch, neighbourhood, grid_height, grid_width, dim, data,
                     batch_stride, row_stride);
        });
    });
}

}  // namespace inreach
