// The k nearest rows so far, ordered by (float64 squared distance, row number).
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace inreach {

struct Answer {
    static constexpr int64_t kNone = std::numeric_limits<int64_t>::max();

    double sq_distance = std::numeric_limits<double>::infinity();
    int64_t row = kNone;

    bool before(const Answer& other) const {
        return sq_distance < other.sq_distance || (sq_distance == other.sq_distance && row < other.row);
    }
};

// A view of k answers kept by the caller, nearest first. For k > 1 a row must be offered once only.
class TopK {
  public:
    TopK(Answer* answers, size_t k) : answers_(answers), k_(k) {}

    size_t k() const { return k_; }

    // Rows farther than this cannot enter: infinity until k rows were found.
    double limit() const { return answers_[k_ - 1].sq_distance; }

    // One at infinity is no answer.
    void offer(const Answer& answer) {
        if (!answer.before(answers_[k_ - 1]) || std::isinf(answer.sq_distance)) return;
        size_t i = k_ - 1;
        for (; i > 0 && answer.before(answers_[i - 1]); --i) answers_[i] = answers_[i - 1];
        answers_[i] = answer;
    }

    // Row numbers (-1 for none) and float32 distances.
    void write(int64_t* index, float* sq_distance) const {
        for (size_t i = 0; i < k_; ++i) {
            index[i] = answers_[i].row == Answer::kNone ? -1 : answers_[i].row;
            sq_distance[i] = static_cast<float>(answers_[i].sq_distance);
        }
    }

  private:
    Answer* answers_;
    size_t k_;
};

}  // namespace inreach
