// The k best answers so far, ordered by (float64 squared distance, row number).
#pragma once

#include <cstdint>
#include <limits>

namespace inreach {

struct Answer {
    double sq_distance = std::numeric_limits<double>::infinity();
    int64_t row = std::numeric_limits<int64_t>::max();

    bool before(const Answer& other) const {
        return sq_distance < other.sq_distance || (sq_distance == other.sq_distance && row < other.row);
    }
};

// A view of k answers kept by the caller, nearest first. A row must be offered once only (for k = 1 again is
// harmless).
class Best {
  public:
    Best(Answer* answers, size_t k) : answers_(answers), k_(k) {}

    // Distance that a row must not exceed to matter: infinity until k rows were found.
    double limit() const { return answers_[k_ - 1].sq_distance; }

    void offer(const Answer& answer) {
        if (!answer.before(answers_[k_ - 1])) return;
        size_t i = k_ - 1;
        for (; i > 0 && answer.before(answers_[i - 1]); --i) answers_[i] = answers_[i - 1];
        answers_[i] = answer;
    }

    // Writes index (-1 where none) and float32 distance.
    void write(int64_t* index, float* sq_distance) const {
        for (size_t i = 0; i < k_; ++i) {
            const bool found = answers_[i].row != std::numeric_limits<int64_t>::max();
            index[i] = found ? answers_[i].row : -1;
            sq_distance[i] = static_cast<float>(answers_[i].sq_distance);
        }
    }

  private:
    Answer* answers_;
    size_t k_;
};

}  // namespace inreach
