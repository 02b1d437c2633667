// What follows a convolution's sums.
#pragma once

namespace inreach {

// Nothing; (0 > y ? 0 : y); or that and then (6 < y ? 6 : y). NaN stays.
enum class Activation { kNone, kRelu, kRelu6 };

}  // namespace inreach
