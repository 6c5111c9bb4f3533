// SPDX-License-Identifier: Apache-2.0
#include "agent/page/image_bitmap.hpp"

#include <bit>

namespace smig {

namespace {

// Calls with each word's index and its bits of the range, until that says false.
template <class Visit>
bool each_word(PfnRange range, Visit visit) {
    for (Pfn pfn = range.start; pfn < range.end();) {
        const std::uint64_t first = pfn.value % 64;
        const std::uint64_t left = range.end().value - pfn.value;
        const std::uint64_t bits = left < 64 - first ? left : 64 - first;
        const std::uint64_t mask = (bits == 64 ? ~0ull : (1ull << bits) - 1) << first;
        if (!visit(pfn.value / 64, mask)) return false;
        pfn.value += bits;
    }
    return true;
}

}  // namespace

bool ImageBitmap::test_all(PfnRange range) const {
    if (range.end() > top_ || range.end() < range.start) return false;
    return each_word(range,
                     [&](std::size_t index, std::uint64_t mask) { return (words_[index] & mask) == mask; });
}

bool ImageBitmap::test_none(PfnRange range) const {
    return each_word(range,
                     [&](std::size_t index, std::uint64_t mask) { return (words_[index] & mask) == 0; });
}

void ImageBitmap::set_all(PfnRange range) {
    each_word(range, [&](std::size_t index, std::uint64_t mask) {
        words_[index] |= mask;
        return true;
    });
}

bool ImageBitmap::meets(const ImageBitmap& other) const {
    for (std::size_t i = 0; i < words_.size() && i < other.words_.size(); ++i)
        if ((words_[i] & other.words_[i]) != 0) return true;
    return false;
}

PageCount ImageBitmap::count_outside(const ImageBitmap& other) const {
    PageCount total;
    for (std::size_t i = 0; i < words_.size(); ++i) {
        const std::uint64_t there = i < other.words_.size() ? other.words_[i] : 0;
        total.value += static_cast<std::uint64_t>(std::popcount(words_[i] & ~there));
    }
    return total;
}

PageCount ImageBitmap::count() const {
    PageCount total;
    for (const std::uint64_t word : words_) total.value += static_cast<std::uint64_t>(std::popcount(word));
    return total;
}

std::uint64_t ImageBitmap::runs() const {
    std::uint64_t total = 0;
    std::uint64_t before = 0;  // the top bit of the word before
    for (const std::uint64_t word : words_) {
        total += static_cast<std::uint64_t>(std::popcount(word & ~(word << 1 | before)));
        before = word >> 63;
    }
    return total;
}

PageCount ImageBitmap::count_in(PfnRange range) const {
    PageCount total;
    each_word(range, [&](std::size_t index, std::uint64_t mask) {
        total.value += static_cast<std::uint64_t>(std::popcount(words_[index] & mask));
        return true;
    });
    return total;
}

bool ImageBitmap::set_beyond_top() const {
    const std::uint64_t used = top_.value % 64;
    return used != 0 && (words_.back() >> used) != 0;
}

Pfn ImageBitmap::next(Pfn from) const {
    if (from >= top_) return top_;
    std::uint64_t index = from.value / 64;
    std::uint64_t word = words_[index] & (~0ull << (from.value % 64));
    while (word == 0) {
        if (++index == words_.size()) return top_;
        word = words_[index];
    }
    const Pfn found{index * 64 + static_cast<std::uint64_t>(std::countr_zero(word))};
    return found < top_ ? found : top_;
}

}  // namespace smig
