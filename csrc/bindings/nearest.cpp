#include "inreach/nearest.h"

#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "bindings.h"
#include "engine/basis.h"
#include "engine/leaf_builder.h"
#include "engine/leaf_index.h"
#include "engine/projected_rows.h"
#include "engine/require.h"

namespace py = pybind11;

namespace inreach {
namespace {

constexpr size_t kHeadFloats = kBallDepth;

// The Python layer has checked these arrays, with error messages of its own; these checks keep any other
// caller from reading outside of them. What does not depend on Python's arrays is checked by the engine.
using Rows = py::array_t<float, py::array::c_style>;
using Ids = py::array_t<int64_t, py::array::c_style>;
using Doubles = py::array_t<double, py::array::c_style>;

RowSet row_set(const Rows& rows, const std::optional<Ids>& index, const std::optional<Ids>& group,
               bool mapped = false) {
    require(rows.ndim() == 2, "rows: expected two dimensions");
    RowSet set;
    set.data = rows.data();
    set.dim = static_cast<size_t>(rows.shape(1));
    set.stride = set.dim;
    set.count = static_cast<size_t>(rows.shape(0));
    if (mapped) set.mapped_bytes = static_cast<size_t>(rows.nbytes());
    if (index) {
        const size_t held = set.count;
        set.index = index->data();
        set.count = static_cast<size_t>(index->size());
        bool inside = true;  // as unsigned numbers, negative ones are too large
        for (size_t i = 0; i < set.count; ++i) inside &= static_cast<uint64_t>(set.index[i]) < held;
        require(inside, "index: no such row");
    }
    if (group) {
        require(static_cast<size_t>(group->size()) == set.count, "group: wrong length");
        set.group = group->data();
    }
    return set;
}

using Floors = py::array_t<float, py::array::c_style>;

RowSet bank_set(const Rows& rows, const std::optional<Ids>& index, const std::optional<Ids>& group,
                bool mapped, const std::optional<Floors>& floor) {
    RowSet set = row_set(rows, index, group, mapped);
    if (floor) {
        require(static_cast<size_t>(floor->size()) == set.count, "floor: wrong length");
        set.floor = floor->data();
    }
    return set;
}

// Something that takes its time to be made.
template <typename T, typename... Arguments>
std::unique_ptr<T> built(Arguments&&... arguments) {
    std::unique_ptr<T> made;
    without_gil([&] { made = std::make_unique<T>(std::forward<Arguments>(arguments)...); });
    return made;
}

// Arrays of an index travel in the dtypes that model files know: unsigned row numbers as int32, codes as
// uint8, bit for bit.
template <typename T>
struct Exported {
    using type = T;
};
template <>
struct Exported<uint32_t> {
    using type = int32_t;
};
template <>
struct Exported<int8_t> {
    using type = uint8_t;
};
template <typename Array>
using ElementOf = std::remove_const_t<std::remove_pointer_t<decltype(std::declval<Array>().data())>>;

py::dict index_arrays(const py::object& self) {
    py::dict out;
    LeafArrays::each(self.cast<const LeafIndex&>().arrays(), [&](const char* name, const auto& stored) {
        using E = typename Exported<ElementOf<decltype(stored)>>::type;
        // `self` owns the memory; an empty array may have none.
        py::array_t<E> view = stored.size() == 0
                                  ? py::array_t<E>(0)
                                  : py::array_t<E>(static_cast<py::ssize_t>(stored.size()),
                                                   reinterpret_cast<const E*>(stored.data()), self);
        py::setattr(view.attr("flags"), "writeable", py::bool_(false));
        out[name] = view;
    });
    return out;
}

// The memory of a plain vector of just this dtype. Not converted: what is converted is a copy that nobody
// would keep alive.
template <typename E>
py::array plain_vector(const py::dict& given, const char* name) {
    const std::string prefix = std::string("LeafIndex: array '") + name + "' ";
    if (!given.contains(name)) throw std::invalid_argument(prefix + "is missing");
    const py::object value = given[name];
    if (!py::isinstance<py::array_t<E>>(value)) throw std::invalid_argument(prefix + "has another dtype");
    const auto array = py::reinterpret_borrow<py::array>(value);
    constexpr int kPlain =
        py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
    if ((array.flags() & kPlain) != kPlain || array.ndim() != 1)
        throw std::invalid_argument(prefix + "must be a plain vector");
    return array;
}

std::unique_ptr<LeafIndex> mapped_index(const Basis& basis, size_t rows, const py::dict& given) {
    LeafArrays arrays;
    LeafArrays::each(arrays, [&](const char* name, auto& stored) {
        using Array = std::remove_reference_t<decltype(stored)>;
        using T = ElementOf<Array>;
        const py::array array = plain_vector<typename Exported<T>::type>(given, name);
        stored = Array::view(reinterpret_cast<const T*>(array.data()), static_cast<size_t>(array.size()));
    });
    return built<LeafIndex>(basis, rows, std::move(arrays));
}

// Name, dtype and length of each array that fill_arrays wants.
py::list array_shapes(const LeafBuilder& builder) {
    py::list out;
    LeafArrays arrays = builder.allocate(true);
    LeafArrays::each(arrays, [&](const char* name, const auto& stored) {
        using E = typename Exported<ElementOf<decltype(stored)>>::type;
        out.append(py::make_tuple(name, py::dtype::of<E>(), stored.size()));
    });
    return out;
}

void fill_arrays(LeafBuilder& builder, const py::dict& given) {
    LeafArrays arrays = builder.allocate(true);
    LeafArrays::each(arrays, [&](const char* name, auto& stored) {
        using Array = std::remove_reference_t<decltype(stored)>;
        using T = ElementOf<Array>;
        py::array array = plain_vector<typename Exported<T>::type>(given, name);
        if (static_cast<size_t>(array.size()) != stored.size() || !array.writeable())
            throw std::invalid_argument(std::string("LeafBuilder: array '") + name + "' has the wrong size");
        stored = Array::writable_view(reinterpret_cast<T*>(array.mutable_data()), stored.size());
    });
    without_gil([&] { builder.fill(arrays); });
}

const int64_t* hints_of(const std::optional<Ids>& hint, const RowSet& queries) {
    if (!hint) return nullptr;
    require(static_cast<size_t>(hint->size()) == queries.count, "hint: wrong length");
    return hint->data();
}

py::tuple counts_tuple(const SearchCounts& counts) {
    return py::make_tuple(counts.pairs, counts.bounded, counts.refined, counts.decided, counts.brute_force);
}

}  // namespace

void bind_nearest(py::module_& module) {
    py::class_<Basis>(module, "Basis")
        .def(py::init([](const Doubles& centre, double scale, const Rows& directions, double defect) {
            const auto dim = static_cast<size_t>(centre.size());
            require(directions.ndim() == 2 && static_cast<size_t>(directions.shape(1)) == dim,
                    "Basis: shapes do not fit");
            return std::make_unique<Basis>(
                Frame(std::vector<double>(centre.data(), centre.data() + dim), scale), dim,
                static_cast<size_t>(directions.shape(0)), directions.data(), defect);
        }))
        .def_property_readonly("rank", &Basis::rank);
    py::class_<ProjectedRows>(module, "ProjectedRows")
        .def(py::init([](const Basis& basis, const Rows& rows, const std::optional<Ids>& index) {
            const RowSet set = row_set(rows, index, std::nullopt);
            return built<ProjectedRows>(basis, set);
        }))
        .def("take", [](const ProjectedRows& self, const Ids& ids) {
            return std::make_unique<ProjectedRows>(self, ids.data(), static_cast<size_t>(ids.size()));
        });
    py::class_<LeafIndex>(module, "LeafIndex")
        .def(py::init([](const Basis& basis, const Rows& rows, const std::optional<Ids>& index,
                         const ProjectedRows* projected) {
            const RowSet set = row_set(rows, index, std::nullopt);
            return built<LeafIndex>(basis, set, projected);
        }))
        .def(py::init(&mapped_index), py::keep_alive<1, 4>())
        .def("arrays", [](const py::object& self) { return index_arrays(self); })
        .def_property_readonly("leaves", &LeafIndex::leaves)
        .def_property_readonly("nbytes", &LeafIndex::bytes);

    py::class_<LeafBuilder>(module, "LeafBuilder")
        .def(py::init([](const Basis& basis, const Rows& rows, const std::optional<Ids>& index,
                         bool rows_mapped, size_t limit, const std::optional<Rows>& heads) {
                 const RowSet set = row_set(rows, index, std::nullopt);
                 BuildMemory memory;
                 memory.limit = limit;
                 memory.rows_mapped = rows_mapped;
                 memory.arrays_mapped = true;
                 if (heads) {
                     if (static_cast<size_t>(heads->size()) != set.count * kBallDepth || !heads->writeable())
                         throw std::invalid_argument("LeafBuilder: heads has the wrong size");
                     memory.heads = const_cast<float*>(heads->data());
                 }
                 return built<LeafBuilder>(basis, set, nullptr, memory);
             }),
             // Not converted: what is converted is a copy that nobody would keep alive.
             py::arg("basis"), py::arg("rows").noconvert(), py::arg("index").noconvert(),
             py::arg("rows_mapped"), py::arg("limit"), py::arg("heads").noconvert(), py::keep_alive<1, 2>(),
             py::keep_alive<1, 3>(), py::keep_alive<1, 4>(), py::keep_alive<1, 7>())
        .def("shapes", &array_shapes)
        .def("fill", &fill_arrays)
        .def_readonly_static("HEAD_FLOATS", &kHeadFloats);

    module.def(
        "nearest_brute",
        [](const Rows& queries, const std::optional<Ids>& query_index, const std::optional<Ids>& query_group,
           const Rows& bank, const std::optional<Ids>& bank_index, const std::optional<Ids>& bank_group,
           bool mapped, size_t k, const std::optional<Floors>& floor) {
            const RowSet a = row_set(queries, query_index, query_group);
            const RowSet b = bank_set(bank, bank_index, bank_group, mapped, floor);
            py::array_t<int64_t> index({a.count, k});
            py::array_t<float> sq_distance({a.count, k});
            int64_t* const index_out = index.mutable_data();
            float* const sq_distance_out = sq_distance.mutable_data();
            SearchCounts counts;
            without_gil([&] { counts = nearest_brute(a, b, k, index_out, sq_distance_out); });
            return py::make_tuple(index, sq_distance, counts_tuple(counts));
        },
        py::arg("queries"), py::arg("query_index"), py::arg("query_group"), py::arg("bank"),
        py::arg("bank_index"), py::arg("bank_group"), py::arg("mapped"), py::arg("k"),
        py::arg("floor") = py::none());
    module.def(
        "nearest_pruned",
        [](const Rows& queries, const std::optional<Ids>& query_index, const std::optional<Ids>& query_group,
           const ProjectedRows& projected, const Rows& bank, const std::optional<Ids>& bank_index,
           const std::optional<Ids>& bank_group, bool mapped, const Basis& basis, const LeafIndex& leaf_index,
           size_t k, const std::optional<Ids>& hint, const std::optional<Floors>& floor) {
            const RowSet a = row_set(queries, query_index, query_group);
            const RowSet b = bank_set(bank, bank_index, bank_group, mapped, floor);
            py::array_t<int64_t> index({a.count, k});
            py::array_t<float> sq_distance({a.count, k});
            int64_t* const index_out = index.mutable_data();
            float* const sq_distance_out = sq_distance.mutable_data();
            const int64_t* const hints = hints_of(hint, a);
            SearchCounts counts;
            without_gil([&] {
                counts =
                    nearest_pruned(a, projected, b, basis, leaf_index, k, hints, index_out, sq_distance_out);
            });
            return py::make_tuple(index, sq_distance, counts_tuple(counts));
        },
        py::arg("queries"), py::arg("query_index"), py::arg("query_group"), py::arg("projected"),
        py::arg("bank"), py::arg("bank_index"), py::arg("bank_group"), py::arg("mapped"), py::arg("basis"),
        py::arg("leaf_index"), py::arg("k"), py::arg("hint"), py::arg("floor") = py::none());
    module.def(
        "nearest_bounds",
        [](const Rows& queries, const std::optional<Ids>& query_index, const std::optional<Ids>& query_group,
           const ProjectedRows& projected, const Rows& bank, const std::optional<Ids>& bank_index,
           const std::optional<Ids>& bank_group, bool mapped, const Basis& basis, const LeafIndex& leaf_index,
           const std::optional<Ids>& hint, const std::optional<Floors>& floor) {
            const RowSet a = row_set(queries, query_index, query_group);
            const RowSet b = bank_set(bank, bank_index, bank_group, mapped, floor);
            const auto m = static_cast<py::ssize_t>(a.count);
            py::array_t<int64_t> index(m);
            py::array_t<float> sq_upper(m), sq_lower(m);
            int64_t* const index_out = index.mutable_data();
            float* const sq_upper_out = sq_upper.mutable_data();
            float* const sq_lower_out = sq_lower.mutable_data();
            const int64_t* const hints = hints_of(hint, a);
            SearchCounts counts;
            without_gil([&] {
                counts = nearest_bounds(a, projected, b, basis, leaf_index, hints, index_out, sq_upper_out,
                                        sq_lower_out);
            });
            return py::make_tuple(index, sq_upper, sq_lower, counts_tuple(counts));
        },
        py::arg("queries"), py::arg("query_index"), py::arg("query_group"), py::arg("projected"),
        py::arg("bank"), py::arg("bank_index"), py::arg("bank_group"), py::arg("mapped"), py::arg("basis"),
        py::arg("leaf_index"), py::arg("hint"), py::arg("floor") = py::none());
    module.def("mutual_nearest_brute", [](const Rows& a_rows, const std::optional<Ids>& a_index,
                                          const Rows& b_rows, const std::optional<Ids>& b_index) {
        const RowSet a = row_set(a_rows, a_index, std::nullopt);
        const RowSet b = row_set(b_rows, b_index, std::nullopt);
        py::array_t<int64_t> ab_index(static_cast<py::ssize_t>(a.count)),
            ba_index(static_cast<py::ssize_t>(b.count));
        py::array_t<float> ab_sq(static_cast<py::ssize_t>(a.count)), ba_sq(static_cast<py::ssize_t>(b.count));
        int64_t* const ab_index_out = ab_index.mutable_data();
        int64_t* const ba_index_out = ba_index.mutable_data();
        float* const ab_sq_out = ab_sq.mutable_data();
        float* const ba_sq_out = ba_sq.mutable_data();
        SearchCounts counts;
        without_gil(
            [&] { counts = mutual_nearest_brute(a, b, ab_index_out, ab_sq_out, ba_index_out, ba_sq_out); });
        return py::make_tuple(ab_index, ab_sq, ba_index, ba_sq, counts_tuple(counts));
    });
    module.def("participation", [](const Rows& rows, const std::optional<Ids>& index, size_t sample) {
        const RowSet set = row_set(rows, index, std::nullopt);
        double directions = 0.0;
        without_gil([&] { directions = participation(set, sample); });
        return directions;
    });
    module.def("first_nonfinite_row", [](const Rows& rows, const std::optional<Ids>& index) {
        const RowSet set = row_set(rows, index, std::nullopt);
        int64_t row = -1;
        without_gil([&] { row = first_nonfinite_row(set); });
        return row;
    });
}

}  // namespace inreach
