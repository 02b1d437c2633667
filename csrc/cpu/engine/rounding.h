// Bounds on rounding: what a filter in float32 must allow for.
#pragma once

#include <cmath>
#include <cstddef>

namespace inreach {

constexpr double kUnit32 = 5.9604644775390625e-08;  // 2^-24, unit roundoff of float32

// gamma_n = n u / (1 - n u): relative error of n roundings in sequence (Higham, Accuracy and Stability of
// Numerical Algorithms, lemma 3.1).
inline double gamma32(size_t n) {
    return static_cast<double>(n) * kUnit32 / (1.0 - static_cast<double>(n) * kUnit32);
}

// The float32 at or above / at or below x.
inline float round_up(double x) {
    const float y = static_cast<float>(x);
    return static_cast<double>(y) >= x ? y : std::nextafterf(y, INFINITY);
}
inline float round_down(double x) {
    const float y = static_cast<float>(x);
    return static_cast<double>(y) <= x ? y : std::nextafterf(y, -INFINITY);
}

}  // namespace inreach
