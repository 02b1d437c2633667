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
#include "engine/leaf_index.h"
#include "engine/projected_rows.h"

namespace py = pybind11;

namespace inreach {
namespace {

// The Python layer has already made these arrays contiguous, of the right type and shape, with its own error
// messages; what is checked again here only keeps a wrong caller from reading outside of an array.
using Rows = py::array_t<float, py::array::c_style>;
using Ids = py::array_t<int64_t, py::array::c_style>;
using Doubles = py::array_t<double, py::array::c_style>;

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
        if (static_cast<size_t>(group->size()) != set.count)
            throw std::invalid_argument("group: wrong length");
        set.group = group->data();
    }
    return set;
}

void check(const RowSet& a, const RowSet& b, size_t k) {
    if (a.dim != b.dim || k == 0) throw std::invalid_argument("rows differ in length, or k is 0");
    if (b.count > 0xfffffffeull) throw std::invalid_argument("a bank holds at most 4294967294 rows");
}

// Arrays of a LeafIndex by name, in the dtypes that model files know: unsigned row numbers travel as int32,
// codes as uint8, bit for bit.
template <typename Visit>
void visit_arrays(Visit&& visit) {
    visit("leaf_heads", &LeafIndex::Arrays::blocks);
    visit("leaf_starts", &LeafIndex::Arrays::starts);
    visit("leaf_errors", &LeafIndex::Arrays::errors);
    visit("leaf_norms", &LeafIndex::Arrays::norms);
    visit("leaf_rows", &LeafIndex::Arrays::row_of);
    visit("ball_centres", &LeafIndex::Arrays::centres);
    visit("ball_starts", &LeafIndex::Arrays::centre_starts);
    visit("ball_radii", &LeafIndex::Arrays::radii);
    visit("codes", &LeafIndex::Arrays::codes);
    visit("unbounded", &LeafIndex::Arrays::unbounded);
}

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

py::dict index_arrays(const py::object& self) {
    const LeafIndex::Arrays& arrays = self.cast<const LeafIndex&>().arrays();
    py::dict out;
    visit_arrays([&](const char* name, auto member) {
        using T = std::remove_const_t<std::remove_pointer_t<decltype((arrays.*member).data())>>;
        using E = typename Exported<T>::type;
        const auto& stored = arrays.*member;
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

std::unique_ptr<LeafIndex> mapped_index(const Basis& basis, size_t rows, const py::dict& given) {
    LeafIndex::Arrays arrays;
    visit_arrays([&](const char* name, auto member) {
        using T = std::remove_const_t<std::remove_pointer_t<decltype((arrays.*member).data())>>;
        using E = typename Exported<T>::type;
        const std::string prefix = std::string("LeafIndex: array '") + name + "' ";
        if (!given.contains(name)) throw std::invalid_argument(prefix + "is missing");
        const py::object value = given[name];
        // Not converted: what is converted is a copy that nobody would keep alive.
        if (!py::isinstance<py::array_t<E>>(value)) throw std::invalid_argument(prefix + "has another dtype");
        const auto array = py::reinterpret_borrow<py::array>(value);
        constexpr int kPlain =
            py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
        if ((array.flags() & kPlain) != kPlain || array.ndim() != 1)
            throw std::invalid_argument(prefix + "must be a plain vector");
        arrays.*member = {reinterpret_cast<const T*>(array.data()), static_cast<size_t>(array.size())};
    });
    return std::make_unique<LeafIndex>(basis, rows, std::move(arrays));
}

py::tuple counts_tuple(const SearchCounts& counts) {
    return py::make_tuple(counts.pairs, counts.bounded, counts.refined, counts.decided, counts.brute_force);
}

}  // namespace

void bind_nearest(py::module_& module) {
    py::class_<Basis>(module, "Basis")
        .def(py::init([](const Doubles& centre, double scale, const Rows& directions,
                         const Doubles& deviation, double defect) {
            const auto dim = static_cast<size_t>(centre.size());
            if (directions.ndim() != 2 || static_cast<size_t>(directions.shape(1)) != dim ||
                deviation.size() != directions.shape(0))
                throw std::invalid_argument("Basis: shapes do not fit");
            return std::make_unique<Basis>(
                Frame(std::vector<double>(centre.data(), centre.data() + dim), scale), dim,
                static_cast<size_t>(directions.shape(0)), directions.data(), deviation.data(), defect);
        }))
        .def_property_readonly("rank", &Basis::rank)
        .def_property_readonly("head", &Basis::head);
    py::class_<ProjectedRows>(module, "ProjectedRows")
        .def(py::init([](const Basis& basis, const Rows& rows, const std::optional<Ids>& index) {
            const RowSet set = row_set(rows, index, std::nullopt);
            const py::gil_scoped_release release;
            return std::make_unique<ProjectedRows>(basis, set);
        }))
        .def("take", [](const ProjectedRows& self, const Ids& ids) {
            for (py::ssize_t i = 0; i < ids.size(); ++i)
                if (ids.data()[i] < 0 || static_cast<size_t>(ids.data()[i]) >= self.frames.size())
                    throw std::invalid_argument("ProjectedRows.take: no such row");
            return std::make_unique<ProjectedRows>(self, ids.data(), static_cast<size_t>(ids.size()));
        });
    py::class_<LeafIndex>(module, "LeafIndex")
        .def(py::init([](const Basis& basis, const Rows& rows, const std::optional<Ids>& index,
                         const ProjectedRows* projected) {
            const RowSet set = row_set(rows, index, std::nullopt);
            check(set, set, 1);
            if (projected && (projected->rank != basis.rank() || projected->frames.size() != set.count))
                throw std::invalid_argument("LeafIndex: projected rows belong to another set or basis");
            const py::gil_scoped_release release;
            return std::make_unique<LeafIndex>(basis, set, projected);
        }))
        .def(py::init(&mapped_index), py::keep_alive<1, 4>())
        .def("arrays", [](const py::object& self) { return index_arrays(self); })
        .def_property_readonly("leaves", &LeafIndex::leaves)
        .def_property_readonly("nbytes", &LeafIndex::bytes);

    module.def("nearest_brute",
               [](const Rows& queries, const std::optional<Ids>& query_index,
                  const std::optional<Ids>& query_group, const Rows& bank,
                  const std::optional<Ids>& bank_index, const std::optional<Ids>& bank_group, size_t k) {
                   const RowSet a = row_set(queries, query_index, query_group);
                   const RowSet b = row_set(bank, bank_index, bank_group);
                   check(a, b, k);
                   py::array_t<int64_t> index({a.count, k});
                   py::array_t<float> sq_distance({a.count, k});
                   int64_t* const index_out = index.mutable_data();
                   float* const sq_distance_out = sq_distance.mutable_data();
                   SearchCounts counts;
                   {
                       const py::gil_scoped_release release;
                       counts = nearest_brute(a, b, k, index_out, sq_distance_out);
                   }
                   return py::make_tuple(index, sq_distance, counts_tuple(counts));
               });
    module.def("nearest_pruned", [](const Rows& queries, const std::optional<Ids>& query_index,
                                    const std::optional<Ids>& query_group, const ProjectedRows& projected,
                                    const Rows& bank, const std::optional<Ids>& bank_index,
                                    const std::optional<Ids>& bank_group, const Basis& basis,
                                    const LeafIndex& leaf_index, size_t k, const std::optional<Ids>& hint) {
        const RowSet a = row_set(queries, query_index, query_group);
        const RowSet b = row_set(bank, bank_index, bank_group);
        check(a, b, k);
        if (projected.frames.size() != a.count || projected.rank != basis.rank() || basis.dim() != a.dim)
            throw std::invalid_argument("nearest_pruned: projected rows belong to another set or basis");
        if (hint && static_cast<size_t>(hint->size()) != a.count)
            throw std::invalid_argument("nearest_pruned: hint: wrong length");
        const int64_t* const hints = hint ? hint->data() : nullptr;
        for (size_t i = 0; hints != nullptr && i < a.count; ++i)
            if (hints[i] < -1 || hints[i] >= static_cast<int64_t>(b.count))
                throw std::invalid_argument("nearest_pruned: hint: no such bank row");
        py::array_t<int64_t> index({a.count, k});
        py::array_t<float> sq_distance({a.count, k});
        int64_t* const index_out = index.mutable_data();
        float* const sq_distance_out = sq_distance.mutable_data();
        SearchCounts counts;
        {
            const py::gil_scoped_release release;
            counts = nearest_pruned(a, projected, b, basis, leaf_index, k, hints, index_out, sq_distance_out);
        }
        return py::make_tuple(index, sq_distance, counts_tuple(counts));
    });
    module.def("mutual_nearest_brute", [](const Rows& a_rows, const std::optional<Ids>& a_index,
                                          const Rows& b_rows, const std::optional<Ids>& b_index) {
        const RowSet a = row_set(a_rows, a_index, std::nullopt);
        const RowSet b = row_set(b_rows, b_index, std::nullopt);
        check(a, b, 1);
        check(b, a, 1);
        py::array_t<int64_t> ab_index(static_cast<py::ssize_t>(a.count)),
            ba_index(static_cast<py::ssize_t>(b.count));
        py::array_t<float> ab_sq(static_cast<py::ssize_t>(a.count)), ba_sq(static_cast<py::ssize_t>(b.count));
        int64_t* const ab_index_out = ab_index.mutable_data();
        int64_t* const ba_index_out = ba_index.mutable_data();
        float* const ab_sq_out = ab_sq.mutable_data();
        float* const ba_sq_out = ba_sq.mutable_data();
        SearchCounts counts;
        {
            const py::gil_scoped_release release;
            counts = mutual_nearest_brute(a, b, ab_index_out, ab_sq_out, ba_index_out, ba_sq_out);
        }
        return py::make_tuple(ab_index, ab_sq, ba_index, ba_sq, counts_tuple(counts));
    });
    module.def("participation", [](const Rows& rows, const std::optional<Ids>& index, size_t sample) {
        const RowSet set = row_set(rows, index, std::nullopt);
        const py::gil_scoped_release release;
        return participation(set, sample);
    });
    module.def("first_nonfinite_row", [](const Rows& rows, const std::optional<Ids>& index) {
        const RowSet set = row_set(rows, index, std::nullopt);
        const py::gil_scoped_release release;
        return first_nonfinite_row(set);
    });
}

}  // namespace inreach
