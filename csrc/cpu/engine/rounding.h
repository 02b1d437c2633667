// Bounds on rounding: what a filter in float32 must allow for.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace inreach {

constexpr double kUnit32 = 5.9604644775390625e-08;  // 2^-24, unit roundoff of float32

// Products and sums below float32's normal range lose up to 2^-126 each (where a library has set the thread
// to flush subnormals to zero; 2^-150 otherwise), whatever their size. In the frame, where data are around
// one, an allowance for 10^7 of them is nothing.
constexpr double kUnderflow = 1e-30;

// Float64 decisions are sums of dim squares: relative error <= (dim / 16 + 12) 2^-53, far below this for any
// dim.
constexpr double kDecisionSlack = 1e-9;

// gamma_n = n u / (1 - n u): relative error of n roundings in sequence (Higham, Accuracy and Stability of
// Numerical Algorithms, lemma 3.1).
// So large that nothing is passed over where the lemma does not hold.
inline double gamma32(size_t n) {
    const double nu = static_cast<double>(n) * kUnit32;
    return nu < 0.5 ? nu / (1.0 - nu) : 1e30;
}

// The float32 next above y, as nextafterf gives it without a call. y is less than infinity, or NaN.
inline float next_above(float y) {
    uint32_t bits;
    std::memcpy(&bits, &y, sizeof bits);
    if (y == 0.0f)
        bits = 1;
    else if (y == y)
        bits += y > 0.0f ? 1u : ~0u;
    std::memcpy(&y, &bits, sizeof bits);
    return y;
}

// The float32 at or above / at or below x.
inline float round_up(double x) {
    const float y = static_cast<float>(x);
    return static_cast<double>(y) >= x ? y : next_above(y);
}
inline float round_down(double x) {
    const float y = static_cast<float>(x);
    return static_cast<double>(y) <= x ? y : -next_above(-y);
}

}  // namespace inreach
