#include "inreach/nearest.h"

#include <pybind11/stl.h>

#include <optional>
#include <stdexcept>

#include "bindings.h"

namespace py = pybind11;

namespace inreach {
namespace {

// The Python layer has already made these arrays contiguous, of the right type and shape, with its own error
// messages; what is checked again here only keeps a wrong caller from reading outside of an array.
using Rows = py::array_t<float, py::array::c_style>;
using Ids = py::array_t<int64_t, py::array::c_style>;

RowSet row_set(const Rows& rows, const std::optional<Ids>& index, const std::optional<Ids>& group) {
    if (rows.ndim() != 2) throw std::invalid_argument("rows: expected two dimensions");
    RowSet set;
    set.data = rows.data();
    set.dim = static_cast<size_t>(rows.shape(1));
    set.stride = set.dim;
    set.count = static_cast<size_t>(rows.shape(0));
    if (index) {
        set.index = index->data();
        set.count = static_cast<size_t>(index->size());
    }
    if (group) {
        if (static_cast<size_t>(group->size()) != set.count) throw std::invalid_argument("group: wrong length");
        set.group = group->data();
    }
    return set;
}

}  // namespace

void bind_nearest(py::module_& module) {
    module.def(
        "nearest",
        [](const Rows& queries, const std::optional<Ids>& query_index, const std::optional<Ids>& query_group,
           const Rows& bank, const std::optional<Ids>& bank_index, const std::optional<Ids>& bank_group, size_t k) {
            const RowSet a = row_set(queries, query_index, query_group);
            const RowSet b = row_set(bank, bank_index, bank_group);
            if (a.dim != b.dim || k == 0) throw std::invalid_argument("nearest: dimensions differ, or k is 0");
            py::array_t<int64_t> index({a.count, k});
            py::array_t<float> sq_distance({a.count, k});
            int64_t* const index_out = index.mutable_data();
            float* const sq_distance_out = sq_distance.mutable_data();
            {
                const py::gil_scoped_release release;
                nearest(a, b, k, index_out, sq_distance_out);
            }
            return py::make_tuple(index, sq_distance);
        });
    module.def("first_nonfinite_row", [](const Rows& rows, const std::optional<Ids>& index) {
        const RowSet set = row_set(rows, index, std::nullopt);
        const py::gil_scoped_release release;
        return first_nonfinite_row(set);
    });
}

}  // namespace inreach
