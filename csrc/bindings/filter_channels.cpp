#include "inreach/filter_channels.h"

#include <stdexcept>
#include <vector>

#include "bindings.h"

namespace py = pybind11;

namespace inreach {
namespace {

using Rows = py::array_t<float, py::array::c_style>;
using Ids = py::array_t<int64_t, py::array::c_style>;
using Sums = py::array_t<double, py::array::c_style>;

// kernels/filtering.py has sorted and checked all of this; these checks keep any other caller from reading
// outside of an array.
ChannelMembers channel_members(const Rows& members, const Ids& rows, const Ids& starts) {
    if (members.ndim() != 2 || rows.ndim() != 1 || starts.ndim() != 1 || starts.size() < 1)
        throw std::invalid_argument("channel_spread: wrong number of dimensions");
    const int64_t* const start = starts.data();
    for (py::ssize_t c = 1; c < starts.size(); ++c)
        if (start[c] <= start[c - 1]) throw std::invalid_argument("channel_spread: starts must ascend");
    if (start[0] != 0 || start[starts.size() - 1] != rows.size())
        throw std::invalid_argument("channel_spread: starts must span the members");
    for (py::ssize_t i = 0; i < rows.size(); ++i)
        if (rows.data()[i] < 0 || rows.data()[i] >= members.shape(0))
            throw std::invalid_argument("channel_spread: rows lie outside of members");
    ChannelMembers view;
    view.data = members.data();
    view.dim = static_cast<size_t>(members.shape(1));
    view.rows = rows.data();
    view.starts = start;
    view.channels = static_cast<size_t>(starts.size() - 1);
    return view;
}

// Rows of one image: a channel named twice would be written to by two threads at once.
void check_slots(const Rows& rows, const Ids& slots, const Sums& sums) {
    if (rows.ndim() != 2 || slots.ndim() != 1 || sums.ndim() != 2 || rows.shape(0) != slots.size() ||
        rows.shape(1) != sums.shape(1))
        throw std::invalid_argument("channel_add, channel_distances: shapes do not fit");
    std::vector<bool> named(static_cast<size_t>(sums.shape(0)), false);
    for (py::ssize_t i = 0; i < slots.size(); ++i) {
        const int64_t slot = slots.data()[i];
        if (slot < 0) continue;
        if (slot >= sums.shape(0))
            throw std::invalid_argument("channel_add, channel_distances: no such slot");
        if (named[static_cast<size_t>(slot)])
            throw std::invalid_argument("channel_add, channel_distances: a slot is named twice");
        named[static_cast<size_t>(slot)] = true;
    }
}

}  // namespace

void bind_filter_channels(py::module_& module) {
    module.def(
        "channel_spread",
        [](const Rows& members, const Ids& rows, const Ids& starts) {
            const ChannelMembers view = channel_members(members, rows, starts);
            py::array_t<double> distance(rows.size());
            py::array_t<double> sigma(static_cast<py::ssize_t>(view.channels));
            double* const distance_out = distance.mutable_data();
            double* const sigma_out = sigma.mutable_data();
            without_gil([&] { channel_spread(view, distance_out, sigma_out); });
            return py::make_tuple(distance, sigma);
        },
        py::arg("members"), py::arg("rows"), py::arg("starts"));
    module.def(
        "channel_add",
        [](const Rows& rows, const Ids& slots, Sums& sums) {
            check_slots(rows, slots, sums);
            double* const out = sums.mutable_data();
            const py::gil_scoped_release release;
            channel_add(rows.data(), static_cast<size_t>(rows.shape(0)), static_cast<size_t>(rows.shape(1)),
                        slots.data(), out);
        },
        py::arg("rows"), py::arg("slots"), py::arg("sums").noconvert());
    module.def(
        "channel_distances",
        [](const Rows& rows, const Ids& slots, const Sums& means) {
            check_slots(rows, slots, means);
            py::array_t<double> distance(slots.size());
            double* const out = distance.mutable_data();
            without_gil([&] {
                channel_distances(rows.data(), static_cast<size_t>(rows.shape(0)),
                                  static_cast<size_t>(rows.shape(1)), slots.data(), means.data(), out);
            });
            return distance;
        },
        py::arg("rows"), py::arg("slots"), py::arg("means"));
}

}  // namespace inreach
