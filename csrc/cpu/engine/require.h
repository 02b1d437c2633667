// Checks at the engine's entries: what a caller can get wrong ends in std::invalid_argument.
#pragma once

#include <stdexcept>

#include "inreach/nearest.h"

namespace inreach {

inline void require(bool holds, const char* message) {
    if (!holds) throw std::invalid_argument(message);
}

// Row numbers are uint32, the greatest stands for none.
constexpr size_t kMostRows = 0xfffffffe;

inline void require_rows(const RowSet& rows) {
    require(rows.dim > 0 && rows.stride >= rows.dim,
            "rows: of no values, or with a stride below their length");
    require(rows.count == 0 || rows.data != nullptr, "rows: no data");
    require(rows.count <= kMostRows, "rows: at most 4294967294 can be searched");
}

inline void require_search(const RowSet& queries, const RowSet& bank, size_t k) {
    require_rows(queries);
    require_rows(bank);
    require(queries.dim == bank.dim, "queries, bank: rows differ in length");
    require(k > 0, "k: must be at least 1");
}

}  // namespace inreach
