// SPDX-License-Identifier: Apache-2.0
// One bit a page frame, in the 64-bit words that the module reads and writes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "agent/page/pfn.hpp"

namespace smig {

class ImageBitmap {
public:
    ImageBitmap() = default;
    // Clear; `top` is exclusive.  Allocates here and nowhere else.
    explicit ImageBitmap(Pfn top) : top_(top), words_((top.value + 63) / 64) {}

    [[nodiscard]] Pfn top() const { return top_; }
    [[nodiscard]] std::span<std::uint64_t> words() { return words_; }
    [[nodiscard]] std::span<const std::uint64_t> words() const { return words_; }
    [[nodiscard]] std::uint64_t bytes() const { return words_.size() * 8; }

    [[nodiscard]] bool test(Pfn pfn) const {
        return pfn < top_ && (words_[pfn.value / 64] >> (pfn.value % 64) & 1) != 0;
    }
    void set(Pfn pfn) { words_[pfn.value / 64] |= 1ull << (pfn.value % 64); }
    // The range ends at or below the top.
    void set_all(PfnRange range);
    // Whether a frame is set in both.  The tops may differ.
    [[nodiscard]] bool meets(const ImageBitmap& other) const;
    // How many of these frames are not set in `other`.
    [[nodiscard]] PageCount count_outside(const ImageBitmap& other) const;
    // Whether every frame of the range is set.
    [[nodiscard]] bool test_all(PfnRange range) const;
    // Whether no frame of a range within the top is set.
    [[nodiscard]] bool test_none(PfnRange range) const;
    [[nodiscard]] PageCount count() const;
    // Runs of set frames side by side.
    [[nodiscard]] std::uint64_t runs() const;
    // Of a range within the top.
    [[nodiscard]] PageCount count_in(PfnRange range) const;
    // Bits at or beyond the top, which nobody may set.
    [[nodiscard]] bool set_beyond_top() const;
    // The first set frame at or after `from`; top() when there is none.
    [[nodiscard]] Pfn next(Pfn from) const;

private:
    Pfn top_;
    std::vector<std::uint64_t> words_;
};

}  // namespace smig
